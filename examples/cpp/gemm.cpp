// A tuned linear layer from C++17: kgen/kgen.hpp in one file.
//
//   kgen_example_cpp tuned.db [DEVICE]       DEVICE: auto (default), host, nvidia:N, amd:N
//
// Serves the gemm of examples/quickstart.yaml at the size it was tuned for and at one that it was not; each result is
// compared with a plain double loop.
#include <cmath>
#include <cstdio>
#include <kgen/kgen.hpp>
#include <random>

namespace {

struct Shape {
  std::int64_t m, n, k;
};

std::vector<float> random_floats(std::size_t count) {
  static std::mt19937 random(1);
  std::uniform_real_distribution<float> value(-0.5F, 0.5F);
  std::vector<float> data(count);
  for (float& x : data) x = value(random);
  return data;
}

bool run(const kgen::Database& db, const kgen::Operator<Shape>& gemm, const Shape& shape) {
  const kgen::Kernel kernel = gemm.find(shape);
  std::printf("m=%lld n=%lld k=%lld\n  %s\n  %s\n", static_cast<long long>(shape.m), static_cast<long long>(shape.n),
              static_cast<long long>(shape.k), kernel.reason(), kernel.config());

  const auto m = static_cast<std::size_t>(shape.m), n = static_cast<std::size_t>(shape.n),
             k = static_cast<std::size_t>(shape.k);
  const std::vector<float> a = random_floats(m * k), b = random_floats(n * k), bias = random_floats(n);
  const kgen::Buffer device_a(db, a), device_b(db, b), device_bias(db, bias), device_d(db, m * n * sizeof(float));
  const kgen::Buffer workspace(db, kernel.workspace_bytes()), prepared(db, kernel.prepared_bytes());
  kgen::Operands operands = gemm.operands();
  operands.set("a", device_a).set("b", device_b).set("bias", device_bias).set("d", device_d);
  kernel.prepare(operands, prepared.data());  // once a weight
  kernel.launch(operands, workspace.data(), prepared.data());
  db.synchronize();

  const auto d = device_d.to_host<float>();
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double sum = bias[j], terms = std::fabs(sum);
      for (std::size_t t = 0; t < k; ++t) {
        const double product = static_cast<double>(a[i * k + t]) * b[j * k + t];
        sum += product;
        terms += std::fabs(product);
      }
      // The bound that kgen's own verification uses for fp32.
      const double unit = std::ldexp(1, -24);
      if (!(std::fabs(d[i * n + j] - sum) <= 4 * std::sqrt(shape.k + 1.0) * unit * terms + unit * std::fabs(sum)))
        ++wrong;
    }
  }
  std::printf("  result %s\n", wrong == 0 ? "correct" : "WRONG");
  return wrong == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s tuned.db [auto|host|nvidia:N|amd:N]\n", argv[0]);
    return 2;
  }
  try {
    const kgen::Database db(argv[1], argc == 3 ? argv[2] : "auto");
    std::printf("kgen %s on %s\n", kgen::version().c_str(), db.device_name().c_str());
    const kgen::Operator<Shape> gemm(db, "gemm", "dtype=fp32 epilogue=bias",
                                     {{"m", &Shape::m}, {"n", &Shape::n}, {"k", &Shape::k}});
    const bool tuned = run(db, gemm, {64, 192, 192}), other = run(db, gemm, {61, 192, 192});
    return tuned && other ? 0 : 1;
  } catch (const kgen::Error& error) {
    std::fprintf(stderr, "%s: %s\n", kgen_status_name(error.status()), error.what());
    return 1;
  }
}
