// consumer_cpp TUNED.DB: what consumer.c does, through kgen/kgen.hpp; and its errors.
#include <cstdio>
#include <cstring>
#include <kgen/kgen.hpp>

namespace {

struct Shape {
  std::int64_t rows, cols;
};

int failures = 0;
void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  ++failures;
}

template <class Work>
kgen_status thrown(const Work& work) {
  try {
    work();
  } catch (const kgen::Error& error) {
    return std::strlen(error.what()) > 0 ? error.status() : KGEN_INTERNAL;
  }
  return KGEN_OK;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    kgen::Database db(argv[1], "host");
    kgen::Operator<Shape> scale(db, "row_scale", "dtype=fp32", {{"cols", &Shape::cols}, {"rows", &Shape::rows}});
    const Shape shape{8, 16};
    const kgen::Kernel kernel = scale.find(shape);
    kernel.preload();
    std::printf("%s on %s: %s\n", kernel.config(), db.device_name().c_str(), kernel.reason());
    expect(kernel.kind() == KGEN_MATCH_EXACT && kernel.expected_loss() == 0, "the tuned shape is exact");
    expect(scale.find({9, 16}).kind() == KGEN_MATCH_NEAR, "another one is near");
    expect(!db.reload(), "the file has not changed");

    std::vector<float> a(128), w(16);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 7);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i);
    const kgen::Buffer device_a(db, a), device_w(db, w), device_d(db, a.size() * sizeof(float));
    kgen::Buffer workspace;
    workspace = kgen::Buffer(db, kernel.workspace_bytes());
    const kgen::Buffer prepared(db, kernel.prepared_bytes());
    kgen::Operands operands = scale.operands();
    operands.set("a", device_a).set("w", device_w).set("d", device_d).set_scalar("alpha", 2);
    kernel.prepare(operands, prepared.data());
    kernel.launch(operands, workspace.data(), prepared.data());
    db.synchronize();
    const auto d = device_d.to_host<float>();
    for (std::size_t r = 0; r < 8; ++r) {
      float sum = 0;
      for (std::size_t k = 0; k < 16; ++k) sum += a[r * 16 + k] * 2 * w[k];
      for (std::size_t c = 0; c < 16; ++c) expect(d[r * 16 + c] == 2 * sum + static_cast<float>(c), "d is right");
    }

    expect(thrown([&] { operands.set("b", nullptr); }) == KGEN_BAD_ARGUMENT, "an unknown operand is refused");
    expect(thrown([&] { scale.find({-1, 16}); }) == KGEN_BAD_ARGUMENT, "a negative size is refused");
    expect(thrown([&] { kernel.launch(operands); }) == KGEN_BAD_ARGUMENT, "a launch without workspace is refused");
    expect(thrown([&] { kgen::Database("/no/such/file.db"); }) == KGEN_BAD_DATABASE, "a missing file is refused");
    expect(thrown([&] { kgen::Operator<Shape>(db, "row_scal", "", {}); }) == KGEN_BAD_ARGUMENT,
           "an unknown operator is");
  } catch (const kgen::Error& error) {
    std::fprintf(stderr, "%s: %s\n", kgen_status_name(error.status()), error.what());
    return 1;
  }
  if (failures == 0) std::printf("result correct\n");
  return failures == 0 ? 0 : 1;
}
