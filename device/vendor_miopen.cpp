// MIOpen: a convolution, and where the problem asks for it its bias and activation as operators of their own, which is
// what a program that calls MIOpen runs. Declared from the public header (miopen.h) of ROCm 5 to 7. No such GPU was at
// hand: the calls were tried against a stand-in alone.
#include <fmt/format.h>

#include <utility>

#include "device/vendor_library.h"

namespace kgen::vendor {
namespace {

constexpr int kHalf = 0, kFloat = 1, kBf16 = 5;  // miopenDataType_t
constexpr int kConvolutionMode = 0;              // miopenConvolution
constexpr int kAlgorithms = 8;

// miopenConvSolution_t
struct Solution {
  float time_ms;
  std::size_t workspace_bytes;
  std::uint64_t id;
  int algorithm;
};

struct Api {
  int (*create)(void** handle);
  int (*set_stream)(void* handle, void* stream);
  int (*tensor_create)(void** tensor);
  int (*tensor_destroy)(void* tensor);
  int (*tensor_set)(void* tensor, int type, int dims, const int* lengths, const int* strides);
  int (*conv_create)(void** conv);
  int (*conv_destroy)(void* conv);
  int (*conv_init)(void* conv, int spatial_dims, const int* pads, const int* strides, const int* dilations, int mode);
  int (*conv_groups)(void* conv, int groups);
  int (*solutions)(void* handle, void* w, void* x, void* conv, void* y, std::size_t wanted, std::size_t* count,
                   Solution* solutions);
  int (*compile)(void* handle, void* w, void* x, void* conv, void* y, std::uint64_t solution);
  int (*forward)(void* handle, void* w_desc, const void* w, void* x_desc, const void* x, void* conv, void* y_desc,
                 void* y, void* workspace, std::size_t workspace_bytes, std::uint64_t solution);
  int (*bias)(void* handle, const void* alpha, void* b_desc, const void* b, const void* beta, void* y_desc, void* y);
};

using Miopen = Loaded<Api>;

class Convolution : public VendorKernel {
 public:
  Convolution(std::shared_ptr<const Miopen> library, const VendorCall& call)
      : library_(std::move(library)),
        call_(call),
        x_(library_->api.tensor_destroy),
        w_(library_->api.tensor_destroy),
        y_(library_->api.tensor_destroy),
        bias_(library_->api.tensor_destroy),
        conv_(library_->api.conv_destroy) {}

  Result<void> prepare() {
    if (call_.activation != VendorActivation::kNone || call_.addend >= 0 || call_.in != call_.out ||
        (call_.bias >= 0 && call_.bias_type != call_.out))
      return fail(ErrorKind::kBadInput, "MIOpen is timed for convolutions with a bias of their type at most");
    const Api& api = library_->api;
    const auto made = [](int status, const char* what) -> Result<void> {
      if (status == 0) return {};
      return fail(ErrorKind::kBadInput, fmt::format("MIOpen refuses {} (status {})", what, status));
    };
    const int type = call_.in == DType::kFp16 ? kHalf : call_.in == DType::kBf16 ? kBf16 : kFloat;
    const auto tensor = [&](Handle& handle, const std::array<std::int64_t, 4>& dims,
                            const std::array<std::int64_t, 4>& steps) -> Result<void> {
      std::array<int, 4> lengths{}, strides{};
      for (std::size_t i = 0; i < 4; ++i) {
        lengths[i] = static_cast<int>(dims[i]);
        strides[i] = static_cast<int>(steps[i]);
        if (lengths[i] != dims[i] || strides[i] != steps[i])
          return fail(ErrorKind::kBadInput, "MIOpen counts in 32 bits");
      }
      KGEN_CHECK_OK(made(api.tensor_create(handle.out()), "a tensor"));
      return made(api.tensor_set(handle.get(), type, 4, lengths.data(), strides.data()), "a tensor");
    };
    KGEN_CHECK_OK(tensor(x_, call_.x, call_.x_strides));
    KGEN_CHECK_OK(tensor(w_, call_.weight, call_.weight_strides));
    KGEN_CHECK_OK(tensor(y_, call_.y, call_.y_strides));
    const std::int64_t k = call_.y[1];
    KGEN_CHECK_OK(tensor(bias_, {1, k, 1, 1}, {k, 1, 1, 1}));
    const auto pair = [](const std::array<std::int64_t, 2>& values) {
      return std::array<int, 2>{static_cast<int>(values[0]), static_cast<int>(values[1])};
    };
    KGEN_CHECK_OK(made(api.conv_create(conv_.out()), "the operation"));
    KGEN_CHECK_OK(made(api.conv_init(conv_.get(), 2, pair(call_.pad).data(), pair(call_.stride).data(),
                                     pair(call_.dilation).data(), kConvolutionMode),
                       "the operation"));
    KGEN_CHECK_OK(made(api.conv_groups(conv_.get(), static_cast<int>(call_.groups)), "the groups"));
    std::array<Solution, kAlgorithms> found{};
    std::size_t count = 0;
    const int status =
        api.solutions(library_->handle, w_.get(), x_.get(), conv_.get(), y_.get(), found.size(), &count, found.data());
    for (std::size_t i = 0; status == 0 && i < std::min(count, found.size()); ++i) {
      if (api.compile(library_->handle, w_.get(), x_.get(), conv_.get(), y_.get(), found[i].id) != 0) continue;
      solutions_.push_back(found[i].id);
      workspace_bytes_ = std::max(workspace_bytes_, static_cast<std::int64_t>(found[i].workspace_bytes));
    }
    if (solutions_.empty())
      return fail(ErrorKind::kBadInput, fmt::format("MIOpen has no solution for it (status {})", status));
    return {};
  }

  int algorithms() const override { return static_cast<int>(solutions_.size()); }
  std::int64_t workspace_bytes() const override { return workspace_bytes_; }

  Result<void> launch(int algorithm, std::span<DevicePtr const> tensors, DevicePtr workspace, Stream stream) override {
    const Api& api = library_->api;
    const auto at = [&](int operand) { return tensors[static_cast<std::size_t>(operand)]; };
    int status = api.set_stream(library_->handle, stream);
    if (status == 0)
      status = api.forward(library_->handle, w_.get(), at(call_.b), x_.get(), at(call_.a), conv_.get(), y_.get(),
                           at(call_.d), workspace, static_cast<std::size_t>(workspace_bytes_),
                           solutions_[static_cast<std::size_t>(algorithm)]);
    if (status == 0 && call_.bias >= 0) {
      const float one = 1, zero = 0;
      status = api.bias(library_->handle, &one, bias_.get(), at(call_.bias), &zero, y_.get(), at(call_.d));
    }
    if (status == 0) return {};
    return fail(ErrorKind::kDevice, fmt::format("MIOpen does not run it (status {})", status));
  }

 private:
  const std::shared_ptr<const Miopen> library_;
  const VendorCall call_;
  Handle x_, w_, y_, bias_, conv_;
  std::vector<std::uint64_t> solutions_;
  std::int64_t workspace_bytes_ = 0;
};

Result<std::unique_ptr<VendorLibrary>> open(Library library) {
  auto loaded = std::make_shared<Miopen>();
  Api& api = loaded->api;
  int (*version)(std::size_t*, std::size_t*, std::size_t*) = nullptr;
  library.bind(version, "miopenGetVersion");
  library.bind(api.create, "miopenCreate");
  library.bind(api.set_stream, "miopenSetStream");
  library.bind(api.tensor_create, "miopenCreateTensorDescriptor");
  library.bind(api.tensor_destroy, "miopenDestroyTensorDescriptor");
  library.bind(api.tensor_set, "miopenSetTensorDescriptor");
  library.bind(api.conv_create, "miopenCreateConvolutionDescriptor");
  library.bind(api.conv_destroy, "miopenDestroyConvolutionDescriptor");
  library.bind(api.conv_init, "miopenInitConvolutionNdDescriptor");
  library.bind(api.conv_groups, "miopenSetConvolutionGroupCount");
  library.bind(api.solutions, "miopenConvolutionForwardGetSolution");
  library.bind(api.compile, "miopenConvolutionForwardCompileSolution");
  library.bind(api.forward, "miopenConvolutionForwardImmediate");
  library.bind(api.bias, "miopenConvolutionForwardBias");
  KGEN_CHECK_OK(loaded->start(library));
  std::size_t major = 0, minor = 0, patch = 0;
  version(&major, &minor, &patch);
  return std::make_unique<LibraryOf<Convolution, Miopen>>(std::move(loaded),
                                                          fmt::format("MIOpen {}.{}.{}", major, minor, patch));
}

}  // namespace

Result<std::unique_ptr<VendorLibrary>> open_miopen() {
  return find_library({"libMIOpen.so.1"}, [](Library library) { return open(std::move(library)); });
}

}  // namespace kgen::vendor
