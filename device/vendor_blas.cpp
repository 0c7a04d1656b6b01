// cuBLASLt and hipBLASLt: one interface under two spellings, with other numbers for the same things. Declared from the
// public headers of cuBLASLt 12 and 13 (cublasLt.h) and hipBLASLt 0.10 to 1.0 (hipblaslt.h).
//
// Both are column-major. A row-major D [m, n] is a column-major n x m matrix, so the library is asked for D' = B'.A':
// its first operand is our B, its second one our A, and a bias along n is a bias along its rows.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "device/vendor_library.h"

namespace kgen::vendor {
namespace {

// Of what the two libraries spell differently.
struct Dialect {
  const char* name;
  const char* prefix;  // of functions
  int compute_fp32, op_none, op_transpose;
  int transpose_a, transpose_b, epilogue, bias_pointer, bias_type;  // attributes of a matmul descriptor
  int batch_count, batch_offset;                                    // of a layout
  std::size_t algorithm_bytes;                                      // of an algorithm's structure
  bool has_silu;
};
constexpr Dialect kCublasLt = {"cuBLASLt", "cublasLt", 68, 0, 1, 3, 4, 7, 8, 26, 5, 6, 64, false};
constexpr Dialect kHipblasLt = {"hipBLASLt", "hipblasLt", 2, 111, 112, 0, 1, 2, 3, 4, 0, 1, 24, true};

// The same in both.
constexpr int kPreferWorkspace = 1;
constexpr int kEpilogueNone = 1, kEpilogueRelu = 2, kEpilogueBias = 4, kEpilogueGelu = 32, kEpilogueSilu = 65536;
constexpr int kRealFp32 = 0, kRealFp16 = 2, kRealBf16 = 14;

// What PyTorch gives them on a Hopper, and what NVIDIA advises for it.
constexpr std::uint64_t kWorkspaceBytes = 32 << 20;
constexpr int kAlgorithms = 16;

// cublasLtMatmulHeuristicResult_t and hipblasLtMatmulHeuristicResult_t: an algorithm's structure, then these.
struct HeuristicTail {
  std::size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};
constexpr std::size_t kMostAlgorithmBytes = 64;

struct Api {
  int (*create)(void** handle);
  int (*desc_create)(void** desc, int compute, int scale);
  int (*desc_destroy)(void* desc);
  int (*desc_set)(void* desc, int attribute, const void* value, std::size_t bytes);
  int (*layout_create)(void** layout, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t ld);
  int (*layout_destroy)(void* layout);
  int (*layout_set)(void* layout, int attribute, const void* value, std::size_t bytes);
  int (*preference_create)(void** preference);
  int (*preference_destroy)(void* preference);
  int (*preference_set)(void* preference, int attribute, const void* value, std::size_t bytes);
  int (*heuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference, int wanted,
                   void* results, int* count);
  int (*matmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                const void* algorithm, void* workspace, std::size_t workspace_bytes, void* stream);
};

struct Blas : Loaded<Api> {
  explicit Blas(const Dialect& spoken) : dialect(spoken) {}
  const Dialect& dialect;
};

int real_type(DType type) { return type == DType::kFp16 ? kRealFp16 : type == DType::kBf16 ? kRealBf16 : kRealFp32; }

class Product : public VendorKernel {
 public:
  explicit Product(std::shared_ptr<const Blas> library, const VendorCall& call)
      : library_(std::move(library)), call_(call) {}

  Result<void> prepare() {
    const Api& api = library_->api;
    const Dialect& dialect = library_->dialect;
    KGEN_TRY(const int epilogue, epilogue_of());
    const auto made = [&](int status, const char* what) -> Result<void> {
      if (status == 0) return {};
      return fail(ErrorKind::kBadInput, fmt::format("{} refuses {} (status {})", dialect.name, what, status));
    };
    desc_ = Handle(api.desc_destroy);
    KGEN_CHECK_OK(made(api.desc_create(desc_.out(), dialect.compute_fp32, kRealFp32), "the operation"));
    const auto set = [&](int attribute, auto value) {
      return made(api.desc_set(desc_.get(), attribute, &value, sizeof value), "an attribute");
    };
    KGEN_CHECK_OK(set(dialect.transpose_a, std::int32_t{call_.b_nk ? dialect.op_transpose : dialect.op_none}));
    KGEN_CHECK_OK(set(dialect.transpose_b, std::int32_t{dialect.op_none}));
    KGEN_CHECK_OK(set(dialect.epilogue, static_cast<std::uint32_t>(epilogue)));
    if (call_.bias >= 0) {
      // The heuristics read its alignment; launch() puts the real one in its place.
      KGEN_CHECK_OK(set(dialect.bias_pointer, reinterpret_cast<const void*>(256)));
      KGEN_CHECK_OK(set(dialect.bias_type, std::int32_t{real_type(call_.bias_type)}));
    }
    const auto layout = [&](Handle& handle, DType type, std::int64_t rows, std::int64_t columns, std::int64_t ld,
                            std::int64_t batch_stride) -> Result<void> {
      handle = Handle(api.layout_destroy);
      KGEN_CHECK_OK(made(api.layout_create(handle.out(), real_type(type), static_cast<std::uint64_t>(rows),
                                           static_cast<std::uint64_t>(columns), ld),
                         "a layout"));
      if (call_.batch == 1) return {};
      const auto count = static_cast<std::int32_t>(call_.batch);
      KGEN_CHECK_OK(made(api.layout_set(handle.get(), dialect.batch_count, &count, sizeof count), "a batch"));
      return made(api.layout_set(handle.get(), dialect.batch_offset, &batch_stride, sizeof batch_stride), "a batch");
    };
    KGEN_CHECK_OK(layout(b_, call_.in, call_.b_nk ? call_.k : call_.n, call_.b_nk ? call_.n : call_.k, call_.ldb,
                         call_.batch_stride_b));
    KGEN_CHECK_OK(layout(a_, call_.in, call_.k, call_.m, call_.lda, call_.batch_stride_a));
    const bool adds = call_.addend >= 0;
    KGEN_CHECK_OK(layout(c_, call_.out, call_.n, call_.m, adds ? call_.ldc : call_.ldd,
                         adds ? call_.batch_stride_c : call_.batch_stride_d));
    KGEN_CHECK_OK(layout(d_, call_.out, call_.n, call_.m, call_.ldd, call_.batch_stride_d));

    Handle preference(api.preference_destroy);
    KGEN_CHECK_OK(made(api.preference_create(preference.out()), "a preference"));
    KGEN_CHECK_OK(made(api.preference_set(preference.get(), kPreferWorkspace, &kWorkspaceBytes, sizeof kWorkspaceBytes),
                       "a preference"));
    // An array of structures whose size is known at run time alone.
    const std::size_t stride = dialect.algorithm_bytes + sizeof(HeuristicTail);
    std::vector<std::byte> results(stride * kAlgorithms);
    int count = 0;
    const int status = api.heuristic(library_->handle, desc_.get(), b_.get(), a_.get(), c_.get(), d_.get(),
                                     preference.get(), kAlgorithms, results.data(), &count);
    for (int i = 0; status == 0 && i < std::min(count, kAlgorithms); ++i) {
      const std::byte* at = results.data() + static_cast<std::size_t>(i) * stride;
      HeuristicTail tail;
      std::copy_n(at + dialect.algorithm_bytes, sizeof tail, reinterpret_cast<std::byte*>(&tail));
      if (tail.status != 0) continue;
      Algorithm& algorithm = algorithms_.emplace_back();
      std::copy_n(at, dialect.algorithm_bytes, algorithm.bytes.begin());
      workspace_bytes_ = std::max(workspace_bytes_, static_cast<std::int64_t>(tail.workspace_bytes));
    }
    if (algorithms_.empty())
      return fail(ErrorKind::kBadInput, fmt::format("{} has no algorithm for it (status {})", dialect.name, status));
    return {};
  }

  int algorithms() const override { return static_cast<int>(algorithms_.size()); }
  std::int64_t workspace_bytes() const override { return workspace_bytes_; }

  Result<void> launch(int algorithm, std::span<DevicePtr const> tensors, DevicePtr workspace, Stream stream) override {
    const auto at = [&](int operand) { return operand < 0 ? nullptr : tensors[static_cast<std::size_t>(operand)]; };
    const Api& api = library_->api;
    if (call_.bias >= 0) {
      const void* bias = at(call_.bias);
      api.desc_set(desc_.get(), library_->dialect.bias_pointer, &bias, sizeof bias);
    }
    const auto alpha = static_cast<float>(call_.alpha), beta = call_.addend < 0 ? 0.0F : static_cast<float>(call_.beta);
    const void* c = call_.addend < 0 ? at(call_.d) : at(call_.addend);
    const int status =
        api.matmul(library_->handle, desc_.get(), &alpha, at(call_.b), b_.get(), at(call_.a), a_.get(), &beta, c,
                   c_.get(), at(call_.d), d_.get(), algorithms_[static_cast<std::size_t>(algorithm)].bytes.data(),
                   workspace, static_cast<std::size_t>(workspace_bytes_), stream);
    if (status == 0) return {};
    return fail(ErrorKind::kDevice, fmt::format("{} does not run it (status {})", library_->dialect.name, status));
  }

 private:
  struct alignas(16) Algorithm {
    std::array<std::byte, kMostAlgorithmBytes> bytes{};
  };

  Result<int> epilogue_of() const {
    const char* const name = library_->dialect.name;
    int epilogue = 0;
    switch (call_.activation) {
      case VendorActivation::kNone:
        break;
      case VendorActivation::kRelu:
        epilogue = kEpilogueRelu;
        break;
      case VendorActivation::kGeluTanh:
        epilogue = kEpilogueGelu;
        break;
      case VendorActivation::kSilu:
        if (library_->dialect.has_silu) {
          epilogue = kEpilogueSilu;
          break;
        }
        [[fallthrough]];
      default:
        return fail(ErrorKind::kBadInput, fmt::format("{} has no such activation in its epilogue", name));
    }
    if (call_.addend >= 0 && call_.addend_last && call_.activation != VendorActivation::kNone)
      return fail(ErrorKind::kBadInput, fmt::format("{} adds nothing after an activation", name));
    if (call_.addend >= 0 && call_.addend_type != call_.out)
      return fail(ErrorKind::kBadInput, fmt::format("{} adds only what has the result's type", name));
    if (call_.bias >= 0) epilogue |= kEpilogueBias;
    return epilogue == 0 ? kEpilogueNone : epilogue;
  }

  const std::shared_ptr<const Blas> library_;
  const VendorCall call_;
  Handle desc_, a_, b_, c_, d_;
  std::vector<Algorithm> algorithms_;
  std::int64_t workspace_bytes_ = 0;
};

Result<std::unique_ptr<VendorLibrary>> open(const Dialect& dialect, Library library) {
  auto loaded = std::make_shared<Blas>(dialect);
  Api& api = loaded->api;
  const auto bind = [&](auto& function, const char* name) {
    library.bind(function, (std::string(dialect.prefix) + name).c_str());
  };
  bind(api.create, "Create");
  bind(api.desc_create, "MatmulDescCreate");
  bind(api.desc_destroy, "MatmulDescDestroy");
  bind(api.desc_set, "MatmulDescSetAttribute");
  bind(api.layout_create, "MatrixLayoutCreate");
  bind(api.layout_destroy, "MatrixLayoutDestroy");
  bind(api.layout_set, "MatrixLayoutSetAttribute");
  bind(api.preference_create, "MatmulPreferenceCreate");
  bind(api.preference_destroy, "MatmulPreferenceDestroy");
  bind(api.preference_set, "MatmulPreferenceSetAttribute");
  bind(api.heuristic, "MatmulAlgoGetHeuristic");
  bind(api.matmul, "Matmul");
  KGEN_CHECK_OK(loaded->start(library));
  std::string version;
  if (&dialect == &kCublasLt) {
    std::size_t (*get)() = nullptr;
    library.bind(get, "cublasLtGetVersion");
    if (const std::size_t number = get != nullptr ? get() : 0; number >= 100000)
      version = fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
  } else {
    int (*get)(void*, int*) = nullptr;
    int number = 0;
    library.bind(get, "hipblasLtGetVersion");
    if (get != nullptr && get(loaded->handle, &number) == 0)
      version = fmt::format("{}.{}.{}", number / 100000, number / 100 % 1000, number % 100);
  }
  return std::make_unique<LibraryOf<Product, Blas>>(std::move(loaded), fmt::format("{} {}", dialect.name, version));
}

}  // namespace

Result<std::unique_ptr<VendorLibrary>> open_cublaslt() {
  return find_library({"libcublasLt.so.13", "libcublasLt.so.12"},
                      [](Library library) { return open(kCublasLt, std::move(library)); });
}

Result<std::unique_ptr<VendorLibrary>> open_hipblaslt() {
  return find_library({"libhipblaslt.so.1", "libhipblaslt.so.0"},
                      [](Library library) { return open(kHipblasLt, std::move(library)); });
}

}  // namespace kgen::vendor
