// A stand-in for libcublasLt and (FAKE_HIPBLASLT) libhipblaslt in host memory: fp32 products by their rules, so that
// the calls of device/vendor_blas.cpp are held to the layout, transposition and epilogue that they mean. What it is not
// told right, it refuses with a status of its own. KGEN_FAKE_BLASLT: "none" proposes no algorithm, "wrong" computes
// wrongly with its first one, "broken" does not run at all.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

#ifdef FAKE_HIPBLASLT
constexpr int kCompute = 2, kNone = 111, kTranspose = 112;
constexpr int kTransA = 0, kTransB = 1, kEpilogue = 2, kBias = 3, kBiasType = 4, kBatch = 0, kOffset = 1;
struct Algorithm {
  unsigned char number = 0, rest[15] = {};
  std::size_t workspace = 0;
};
#define NAME(name) hipblasLt##name
#else
constexpr int kCompute = 68, kNone = 0, kTranspose = 1;
constexpr int kTransA = 3, kTransB = 4, kEpilogue = 7, kBias = 8, kBiasType = 26, kBatch = 5, kOffset = 6;
struct Algorithm {
  unsigned char number = 0, rest[63] = {};
};
#define NAME(name) cublasLt##name
#endif
constexpr int kMaxWorkspace = 1;

struct Result {
  Algorithm algorithm;
  std::size_t workspace = 0;
  int state = 0;
  float waves = 1;
  int reserved[4] = {};
};

struct Desc {
  std::map<int, std::vector<unsigned char>> attributes;
  template <class T>
  T get(int which, T otherwise) const {
    const auto at = attributes.find(which);
    if (at == attributes.end() || at->second.size() != sizeof(T)) return otherwise;
    T value;
    std::memcpy(&value, at->second.data(), sizeof value);
    return value;
  }
};
struct Layout {
  std::int64_t rows, columns, ld;
  Desc more;
};

std::string setting() {
  const char* value = std::getenv("KGEN_FAKE_BLASLT");
  return value == nullptr ? "" : value;
}

int put(Desc& desc, int attribute, const void* value, std::size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(value);
  desc.attributes[attribute].assign(from, from + bytes);
  return 0;
}

constexpr int kRefused = 7, kUnsupported = 15;

}  // namespace

extern "C" {
#define API __attribute__((visibility("default")))

API int NAME(Create)(void** handle) {
  *handle = new int(1);
  return 0;
}
#ifdef FAKE_HIPBLASLT
API int hipblasLtGetVersion(void*, int* version) {
  *version = 1000;
  return 0;
}
#else
API std::size_t cublasLtGetVersion() { return 130002; }
#endif
API int NAME(MatmulDescCreate)(Desc** desc, int compute, int scale) {
  if (compute != kCompute || scale != 0) return kRefused;
  *desc = new Desc;
  return 0;
}
API int NAME(MatmulDescDestroy)(Desc* desc) {
  delete desc;
  return 0;
}
API int NAME(MatmulDescSetAttribute)(Desc* desc, int attribute, const void* value, std::size_t bytes) {
  return put(*desc, attribute, value, bytes);
}
API int NAME(MatrixLayoutCreate)(Layout** layout, int type, std::uint64_t rows, std::uint64_t columns,
                                 std::int64_t ld) {
  if (type != 0) return kRefused;  // fp32 alone
  *layout = new Layout{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), ld, {}};
  return 0;
}
API int NAME(MatrixLayoutDestroy)(Layout* layout) {
  delete layout;
  return 0;
}
API int NAME(MatrixLayoutSetAttribute)(Layout* layout, int attribute, const void* value, std::size_t bytes) {
  return put(layout->more, attribute, value, bytes);
}
API int NAME(MatmulPreferenceCreate)(Desc** preference) {
  *preference = new Desc;
  return 0;
}
API int NAME(MatmulPreferenceDestroy)(Desc* preference) {
  delete preference;
  return 0;
}
API int NAME(MatmulPreferenceSetAttribute)(Desc* preference, int attribute, const void* value, std::size_t bytes) {
  return put(*preference, attribute, value, bytes);
}

API int NAME(MatmulAlgoGetHeuristic)(void*, const Desc* desc, const Layout* a, const Layout* b, const Layout* c,
                                     const Layout* d, const Desc* preference, int wanted, Result* results, int* count) {
  const int ta = desc->get(kTransA, kNone), tb = desc->get(kTransB, kNone);
  const std::int64_t m = ta == kTranspose ? a->columns : a->rows, k = ta == kTranspose ? a->rows : a->columns;
  const std::int64_t n = tb == kTranspose ? b->rows : b->columns, kb = tb == kTranspose ? b->columns : b->rows;
  if (k != kb || d->rows != m || d->columns != n || c->rows != m || c->columns != n) return kRefused;
  for (const Layout* layout : {a, b, c, d})
    if (layout->ld < layout->rows) return kRefused;
  if (preference->get(kMaxWorkspace, std::uint64_t{0}) < 4096 || wanted < 3) return kRefused;
  if ((desc->get(kEpilogue, 1U) & 4U) != 0 && desc->get(kBias, std::uintptr_t{0}) % 16 != 0) return kRefused;
  *count = 0;
  if (setting() == "none") return kUnsupported;
  for (const unsigned char number : {1, 2, 3}) {
    Result result;
    result.algorithm.number = number;
    result.workspace = 1024 * number;
    result.state = number == 2 ? kUnsupported : 0;  // what it does not vouch for is not to be used
    results[(*count)++] = result;
  }
  return 0;
}

API int NAME(Matmul)(void*, const Desc* desc, const float* alpha, const float* a, const Layout* la, const float* b,
                     const Layout* lb, const float* beta, const float* c, const Layout* lc, float* d, const Layout* ld,
                     const Algorithm* algorithm, void* workspace, std::size_t workspace_bytes, void*) {
  if (setting() == "broken") return 13;
  if (algorithm->number != 1 && algorithm->number != 3) return kRefused;
  if (workspace == nullptr || workspace_bytes < std::size_t{1024} * algorithm->number) return kRefused;
  std::memset(workspace, 0, 1024 * algorithm->number);  // it is the caller's to lend
  const bool ta = desc->get(kTransA, kNone) == kTranspose, tb = desc->get(kTransB, kNone) == kTranspose;
  const unsigned epilogue = desc->get(kEpilogue, 1U);
  const auto* bias = reinterpret_cast<const float*>(desc->get(kBias, std::uintptr_t{0}));
  if (desc->get(kBiasType, 0) != 0) return kRefused;
  const std::int64_t k = ta ? la->rows : la->columns;
  const auto offset = [](const Layout* layout, std::int64_t batch) {
    return batch * layout->more.get(kOffset, std::int64_t{0});
  };
  const int batches = ld->more.get(kBatch, 1);
  for (std::int64_t batch = 0; batch < batches; ++batch)
    for (std::int64_t j = 0; j < ld->columns; ++j)
      for (std::int64_t i = 0; i < ld->rows; ++i) {
        double sum = 0;
        for (std::int64_t t = 0; t < k; ++t)
          sum += static_cast<double>(a[offset(la, batch) + (ta ? i * la->ld + t : t * la->ld + i)]) *
                 static_cast<double>(b[offset(lb, batch) + (tb ? t * lb->ld + j : j * lb->ld + t)]);
        double value = static_cast<double>(*alpha) * sum;
        if (*beta != 0) value += static_cast<double>(*beta * c[offset(lc, batch) + j * lc->ld + i]);
        if ((epilogue & 4U) != 0) value += static_cast<double>(bias[i]);
        if ((epilogue & 2U) != 0) value = std::max(value, 0.0);
        if ((epilogue & 32U) != 0)
          value *=
              0.5 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (value + 0.044715 * value * value * value)));
        if ((epilogue & 65536U) != 0) value /= 1 + std::exp(-value);
        if (setting() == "wrong" && algorithm->number == 1) value += 1;
        d[offset(ld, batch) + j * ld->ld + i] = static_cast<float>(value);
      }
  return 0;
}
}
