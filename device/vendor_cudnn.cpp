// cuDNN's graph interface ("backend"): a convolution with what follows it as one operation graph, and the execution
// plans that its heuristics propose. Declared from the public header of cuDNN 9 (cudnn_graph.h).
#include <fmt/format.h>

#include <map>
#include <utility>

#include "device/vendor_library.h"

namespace kgen::vendor {
namespace {

// cudnnBackendDescriptorType_t, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t and the values they take.
enum Descriptor {
  kPointwise = 0,
  kConvolution = 1,
  kEngineConfig = 3,
  kEngineHeur = 4,
  kPlan = 5,
  kConvForward = 10,
  kPointwiseOp = 13,
  kGraph = 15,
  kVariantPack = 16,
  kTensor = 17
};
enum Attribute {
  kPointwiseMode = 0,
  kPointwisePrecision = 1,
  kConvType = 100,
  kConvMode = 101,
  kConvDilations = 102,
  kConvStrides = 103,
  kConvPostPadding = 104,
  kConvPrePadding = 105,
  kConvSpatialDims = 106,
  kHeurMode = 200,
  kHeurGraph = 201,
  kHeurResults = 202,
  kPlanHandle = 400,
  kPlanConfig = 401,
  kPlanWorkspace = 402,
  kForwardAlpha = 700,
  kForwardBeta = 701,
  kForwardConv = 702,
  kForwardW = 703,
  kForwardX = 704,
  kForwardY = 705,
  kPointwiseDesc = 750,
  kPointwiseX = 751,
  kPointwiseB = 752,
  kPointwiseY = 753,
  kGraphHandle = 800,
  kGraphOps = 801,
  kTensorAlignment = 900,
  kTensorType = 901,
  kTensorDims = 902,
  kTensorStrides = 903,
  kTensorId = 906,
  kTensorVirtual = 907,
  kPackIds = 1000,
  kPackPointers = 1001,
  kPackWorkspace = 1003
};
enum Type {
  kHandleType = 0,
  kDataType = 1,
  kBoolean = 2,
  kInt64 = 3,
  kFloat = 4,
  kVoidPtr = 6,
  kConvModeType = 7,
  kHeurModeType = 8,
  kPointwiseModeType = 14,
  kDescriptorType = 15
};
constexpr int kCrossCorrelation = 1, kHeuristicA = 3, kHeuristicFallback = 2;
constexpr int kAdd = 0, kRelu = 100, kSigmoid = 102, kGelu = 104, kSwish = 106, kGeluTanh = 107;
constexpr int kDataFloat = 0, kDataHalf = 2, kDataBf16 = 9;

// Plans that are tried, and the workspace that one may have.
constexpr std::size_t kPlans = 8;
constexpr std::int64_t kMostWorkspace = 512 << 20;

struct Api {
  int (*create)(void** handle);
  int (*set_stream)(void* handle, void* stream);
  int (*make)(int type, void** descriptor);
  int (*destroy)(void* descriptor);
  int (*finalize)(void* descriptor);
  int (*set)(void* descriptor, int attribute, int type, std::int64_t count, const void* values);
  int (*get)(void* descriptor, int attribute, int type, std::int64_t wanted, std::int64_t* count, void* values);
  int (*execute)(void* handle, void* plan, void* pack);
};

using Dnn = Loaded<Api>;

// A descriptor while it is filled in and after. The first refusal is kept.
class Backend {
 public:
  Backend(const Api& api, Descriptor type) : api_(&api) { keep(api.make(type, &raw_)); }
  Backend(Backend&& other) noexcept
      : api_(other.api_), raw_(std::exchange(other.raw_, nullptr)), status_(other.status_) {}
  Backend& operator=(Backend&&) = delete;
  ~Backend() {
    if (raw_ != nullptr) api_->destroy(raw_);
  }

  template <class T>
  Backend& set(Attribute attribute, Type type, std::span<const T> values) {
    if (status_ == 0) keep(api_->set(raw_, attribute, type, static_cast<std::int64_t>(values.size()), values.data()));
    return *this;
  }
  template <class T>
  Backend& set(Attribute attribute, Type type, const T& value) {
    return set(attribute, type, std::span<const T>(&value, 1));
  }
  Backend& set(Attribute attribute, const Backend& other) {
    return set(attribute, kDescriptorType, static_cast<void*>(other.raw_));
  }
  int finalize() {
    if (status_ == 0) keep(api_->finalize(raw_));
    return status_;
  }
  void* get() const { return raw_; }

 private:
  void keep(int status) {
    if (status_ == 0) status_ = status;
  }
  const Api* api_;
  void* raw_ = nullptr;
  int status_ = 0;
};

int data_type(DType type) { return type == DType::kFp16 ? kDataHalf : type == DType::kBf16 ? kDataBf16 : kDataFloat; }

class Convolution : public VendorKernel {
 public:
  Convolution(std::shared_ptr<const Dnn> library, const VendorCall& call) : library_(std::move(library)), call_(call) {}

  Result<void> prepare() {
    const Api& api = library_->api;
    int refused = 0;
    const auto check = [&](Backend& made) {
      if (const int status = made.finalize(); refused == 0) refused = status;
    };
    const auto tensor = [&](std::int64_t id, DType type, std::array<std::int64_t, 4> dims,
                            const std::array<std::int64_t, 4>& strides, bool intermediate) {
      Backend made(api, kTensor);
      made.set(kTensorType, kDataType, data_type(type))
          .set(kTensorDims, kInt64, std::span<const std::int64_t>(dims))
          .set(kTensorStrides, kInt64, std::span<const std::int64_t>(strides))
          .set(kTensorId, kInt64, id)
          .set(kTensorAlignment, kInt64, std::int64_t{16})
          .set(kTensorVirtual, kBoolean, intermediate);
      check(made);
      return made;
    };
    struct Follows {
      int mode;
      std::int64_t operand;  // id of the tensor that is added; 0: none
    };
    std::vector<Follows> follow;
    if (call_.bias >= 0) follow.push_back({kAdd, kBiasId});
    if (call_.addend >= 0 && !call_.addend_last) follow.push_back({kAdd, kAddendId});
    switch (call_.activation) {
      case VendorActivation::kNone:
        break;
      case VendorActivation::kRelu:
        follow.push_back({kRelu, 0});
        break;
      case VendorActivation::kGeluTanh:
        follow.push_back({kGeluTanh, 0});
        break;
      case VendorActivation::kGeluErf:
        follow.push_back({kGelu, 0});
        break;
      case VendorActivation::kSilu:
        follow.push_back({kSwish, 0});
        break;
      case VendorActivation::kSigmoid:
        follow.push_back({kSigmoid, 0});
        break;
    }
    if (call_.addend >= 0 && call_.addend_last) follow.push_back({kAdd, kAddendId});

    const std::int64_t k = call_.y[1];
    const Backend x = tensor(kXId, call_.in, call_.x, call_.x_strides, false);
    const Backend w = tensor(kWeightId, call_.in, call_.weight, call_.weight_strides, false);
    const Backend bias = tensor(kBiasId, call_.bias_type, {1, k, 1, 1}, {k, 1, k, k}, false);
    const Backend addend = tensor(kAddendId, call_.addend_type, call_.y,
                                  call_.addend >= 0 ? call_.addend_strides : call_.y_strides, false);
    // What stands between two operations is never in memory; the last one's result is y.
    std::vector<Backend> results;
    for (std::size_t i = 0; i < follow.size() + 1; ++i) {
      const bool last = i == follow.size();
      results.push_back(tensor(last ? kYId : kBetweenId + static_cast<std::int64_t>(i), last ? call_.out : DType::kFp32,
                               call_.y, call_.y_strides, !last));
    }
    Backend convolution(api, kConvolution);
    convolution.set(kConvSpatialDims, kInt64, std::int64_t{2})
        .set(kConvType, kDataType, kDataFloat)
        .set(kConvMode, kConvModeType, kCrossCorrelation)
        .set(kConvDilations, kInt64, std::span<const std::int64_t>(call_.dilation))
        .set(kConvStrides, kInt64, std::span<const std::int64_t>(call_.stride))
        .set(kConvPrePadding, kInt64, std::span<const std::int64_t>(call_.pad))
        .set(kConvPostPadding, kInt64, std::span<const std::int64_t>(call_.pad));
    check(convolution);
    std::vector<Backend> operations, pointwise;
    Backend& forward = operations.emplace_back(api, kConvForward);
    forward.set(kForwardX, x).set(kForwardW, w).set(kForwardY, results.front()).set(kForwardConv, convolution);
    forward.set(kForwardAlpha, kFloat, 1.0F).set(kForwardBeta, kFloat, 0.0F);
    check(forward);
    for (std::size_t i = 0; i < follow.size(); ++i) {
      Backend& how = pointwise.emplace_back(api, kPointwise);
      how.set(kPointwiseMode, kPointwiseModeType, follow[i].mode).set(kPointwisePrecision, kDataType, kDataFloat);
      check(how);
      Backend& operation = operations.emplace_back(api, kPointwiseOp);
      operation.set(kPointwiseDesc, how).set(kPointwiseX, results[i]).set(kPointwiseY, results[i + 1]);
      if (follow[i].operand != 0) operation.set(kPointwiseB, follow[i].operand == kBiasId ? bias : addend);
      check(operation);
    }
    std::vector<void*> raw;
    for (const Backend& operation : operations) raw.push_back(operation.get());
    Backend graph(api, kGraph);
    graph.set(kGraphHandle, kHandleType, library_->handle).set(kGraphOps, kDescriptorType, std::span<void* const>(raw));
    check(graph);
    if (refused != 0) return fail(ErrorKind::kBadInput, fmt::format("cuDNN refuses the graph (status {})", refused));
    for (const int mode : {kHeuristicA, kHeuristicFallback}) {
      propose(graph, mode, refused);
      if (!plans_.empty()) return {};
    }
    return fail(ErrorKind::kBadInput, fmt::format("cuDNN has no engine for it (status {})", refused));
  }

  int algorithms() const override { return static_cast<int>(plans_.size()); }
  std::int64_t workspace_bytes() const override { return workspace_bytes_; }

  Result<void> launch(int algorithm, std::span<DevicePtr const> tensors, DevicePtr workspace, Stream stream) override {
    const Api& api = library_->api;
    // Made once for each set of tensors: a capture must not be disturbed, and a launch not be slowed down.
    const auto key = std::pair(tensors[static_cast<std::size_t>(call_.d)], workspace);
    auto pack = packs_.find(key);
    if (pack == packs_.end()) {
      std::vector<std::int64_t> ids;
      std::vector<void*> pointers;
      const auto add = [&](std::int64_t id, int operand) {
        if (operand < 0) return;
        ids.push_back(id);
        pointers.push_back(tensors[static_cast<std::size_t>(operand)]);
      };
      add(kXId, call_.a);
      add(kWeightId, call_.b);
      add(kBiasId, call_.bias);
      add(kAddendId, call_.addend);
      add(kYId, call_.d);
      Backend made(api, kVariantPack);
      made.set(kPackIds, kInt64, std::span<const std::int64_t>(ids))
          .set(kPackPointers, kVoidPtr, std::span<void* const>(pointers))
          .set(kPackWorkspace, kVoidPtr, workspace);
      if (const int status = made.finalize(); status != 0)
        return fail(ErrorKind::kDevice, fmt::format("cuDNN refuses the pointers (status {})", status));
      pack = packs_.emplace(key, std::move(made)).first;
    }
    int status = api.set_stream(library_->handle, stream);
    if (status == 0)
      status = api.execute(library_->handle, plans_[static_cast<std::size_t>(algorithm)].get(), pack->second.get());
    if (status == 0) return {};
    return fail(ErrorKind::kDevice, fmt::format("cuDNN does not run it (status {})", status));
  }

 private:
  enum Ids : std::int64_t { kXId = 1, kWeightId, kBiasId, kAddendId, kYId, kBetweenId };

  void propose(const Backend& graph, int mode, int& refused) {
    const Api& api = library_->api;
    Backend heuristics(api, kEngineHeur);
    heuristics.set(kHeurGraph, graph).set(kHeurMode, kHeurModeType, mode);
    if (const int status = heuristics.finalize(); status != 0) {
      refused = status;
      return;
    }
    std::vector<Backend>& configs = configs_.emplace_back();
    std::vector<void*> raw;
    for (std::size_t i = 0; i < 2 * kPlans; ++i) raw.push_back(configs.emplace_back(api, kEngineConfig).get());
    std::int64_t count = 0;
    refused = api.get(heuristics.get(), kHeurResults, kDescriptorType, static_cast<std::int64_t>(raw.size()), &count,
                      raw.data());
    for (std::int64_t i = 0; refused == 0 && i < count && i < std::ssize(configs) && plans_.size() < kPlans; ++i) {
      Backend plan(api, kPlan);
      plan.set(kPlanHandle, kHandleType, library_->handle).set(kPlanConfig, configs[static_cast<std::size_t>(i)]);
      if (plan.finalize() != 0) continue;
      std::int64_t bytes = 0, read = 0;
      if (api.get(plan.get(), kPlanWorkspace, kInt64, 1, &read, &bytes) != 0 || bytes > kMostWorkspace) continue;
      workspace_bytes_ = std::max(workspace_bytes_, bytes);
      plans_.push_back(std::move(plan));
    }
  }

  const std::shared_ptr<const Dnn> library_;
  const VendorCall call_;
  std::vector<std::vector<Backend>> configs_;  // which the plans refer to
  std::vector<Backend> plans_;
  std::int64_t workspace_bytes_ = 0;
  std::map<std::pair<void*, void*>, Backend> packs_;
};

Result<std::unique_ptr<VendorLibrary>> open(Library library) {
  auto loaded = std::make_shared<Dnn>();
  Api& api = loaded->api;
  std::size_t (*version)() = nullptr;
  library.bind(version, "cudnnGetVersion");
  library.bind(api.create, "cudnnCreate");
  library.bind(api.set_stream, "cudnnSetStream");
  library.bind(api.make, "cudnnBackendCreateDescriptor");
  library.bind(api.destroy, "cudnnBackendDestroyDescriptor");
  library.bind(api.finalize, "cudnnBackendFinalize");
  library.bind(api.set, "cudnnBackendSetAttribute");
  library.bind(api.get, "cudnnBackendGetAttribute");
  library.bind(api.execute, "cudnnBackendExecute");
  KGEN_CHECK_OK(loaded->start(library));
  const std::size_t number = version();
  return std::make_unique<LibraryOf<Convolution, Dnn>>(
      std::move(loaded), fmt::format("cuDNN {}.{}.{}", number / 10000, number / 100 % 100, number % 100));
}

}  // namespace

Result<std::unique_ptr<VendorLibrary>> open_cudnn() {
  return find_library({"libcudnn.so.9"}, [](Library library) { return open(std::move(library)); });
}

}  // namespace kgen::vendor
