// A stand-in for libcudnn in host memory: descriptors keep what they are told, a plan runs the operation graph that it
// was made of on fp32 tensors, by strides, so that the calls of device/vendor_cudnn.cpp are held to what they mean.
// What is not told right, it refuses. KGEN_FAKE_CUDNN: "none" proposes no engine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr int kPointwise = 0, kConvolution = 1, kEngineConfig = 3, kEngineHeur = 4, kPlan = 5, kForward = 10,
              kPointwiseOp = 13, kGraph = 15, kVariantPack = 16, kTensor = 17;
constexpr int kRefused = 2000, kUnsupported = 3000;
int handle_of_all = 0;  // its address is the handle

// A tensor while a graph runs.
struct View {
  std::int64_t id = 0;
  bool intermediate = false;
  std::vector<std::int64_t> dims, strides;
  float* data = nullptr;
  float& at(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) const {
    const auto step = [&](std::size_t axis, std::int64_t i) { return dims[axis] == 1 ? 0 : i * strides[axis]; };
    return data[step(0, n) + step(1, c) + step(2, h) + step(3, w)];
  }
};
// One operation of a plan, which outlives the descriptors that it was made of.
struct Operation {
  int mode = -1;  // pointwise; -1: the convolution
  View x, b, y;   // b: the weight, or what is added
  std::vector<std::int64_t> pad, stride, dilation;
};

struct Descriptor {
  int type;
  bool finalized = false;
  struct Attribute {
    int type;
    std::vector<unsigned char> bytes;
  };
  std::map<int, Attribute> attributes;
  int number = 0;                       // of a configuration
  std::vector<Operation> operations{};  // of a plan

  template <class T>
  std::vector<T> all(int which) const {
    const auto at = attributes.find(which);
    if (at == attributes.end()) return {};
    std::vector<T> values(at->second.bytes.size() / sizeof(T));
    std::memcpy(values.data(), at->second.bytes.data(), values.size() * sizeof(T));
    return values;
  }
  template <class T>
  T one(int which) const {
    const auto values = all<T>(which);
    return values.size() == 1 ? values[0] : T{};
  }
  const Descriptor* to(int which) const { return one<Descriptor*>(which); }
};

std::size_t size_of(int type) {
  switch (type) {
    case 2:
      return 1;  // boolean
    case 3:
    case 0:
    case 6:
    case 15:
      return 8;  // int64, handle, pointer, descriptor
    default:
      return 4;  // enumerators, float
  }
}

bool whole(const Descriptor& d) {
  const auto has = [&](std::initializer_list<int> which) {
    return std::all_of(which.begin(), which.end(), [&](int a) { return d.attributes.contains(a); });
  };
  const auto finalized = [&](std::initializer_list<int> which) {
    return std::all_of(which.begin(), which.end(), [&](int a) { return d.to(a) != nullptr && d.to(a)->finalized; });
  };
  switch (d.type) {
    case kTensor:
      return has({901, 902, 903, 906, 900}) && d.one<int>(901) == 0 && d.all<std::int64_t>(902).size() == 4 &&
             d.all<std::int64_t>(903).size() == 4;
    case kConvolution:
      return has({100, 101, 102, 103, 104, 105}) && d.one<std::int64_t>(106) == 2 && d.one<int>(101) == 1;
    case kPointwise:
      return has({0, 1});
    case kForward:
      return finalized({702, 703, 704, 705}) && d.one<float>(700) == 1 && d.one<float>(701) == 0;
    case kPointwiseOp:
      return finalized({750, 751, 753}) && (d.to(750)->one<int>(0) != 0 || finalized({752}));
    case kGraph:
      return d.one<void*>(800) == &handle_of_all && !d.all<Descriptor*>(801).empty();
    case kEngineHeur:
      return finalized({201}) && has({200});
    case kPlan:
      return d.one<void*>(400) == &handle_of_all && d.to(401) != nullptr && d.to(401)->number != 2;
    case kVariantPack:
      return has({1000, 1001, 1003}) && d.all<std::int64_t>(1000).size() == d.all<void*>(1001).size();
    default:
      return true;
  }
}

View view(const Descriptor* tensor) {
  if (tensor == nullptr) return {};
  return {.id = tensor->one<std::int64_t>(906),
          .intermediate = tensor->one<unsigned char>(907) != 0,
          .dims = tensor->all<std::int64_t>(902),
          .strides = tensor->all<std::int64_t>(903)};
}

std::vector<Operation> operations_of(const Descriptor& graph) {
  std::vector<Operation> operations;
  for (const Descriptor* op : graph.all<Descriptor*>(801)) {
    Operation& made = operations.emplace_back();
    if (op->type == kForward) {
      const Descriptor* how = op->to(702);
      made.x = view(op->to(704)), made.b = view(op->to(703)), made.y = view(op->to(705));
      made.pad = how->all<std::int64_t>(105), made.stride = how->all<std::int64_t>(103);
      made.dilation = how->all<std::int64_t>(102);
    } else {
      made.mode = op->to(750)->one<int>(0);
      made.x = view(op->to(751)), made.b = view(op->to(752)), made.y = view(op->to(753));
    }
  }
  return operations;
}

double pointwise(int mode, double x, double b) {
  switch (mode) {
    case 0:
      return x + b;
    case 100:
      return std::max(x, 0.0);
    case 102:
      return 1 / (1 + std::exp(-x));
    case 104:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case 106:
      return x / (1 + std::exp(-x));
    default:
      return std::nan("");
  }
}

}  // namespace

extern "C" {
#define API __attribute__((visibility("default")))

API std::size_t cudnnGetVersion() { return 91900; }
API int cudnnCreate(void** handle) {
  *handle = &handle_of_all;
  return 0;
}
API int cudnnSetStream(void* handle, void*) { return handle == &handle_of_all ? 0 : kRefused; }
API int cudnnBackendCreateDescriptor(int type, Descriptor** made) {
  *made = new Descriptor{.type = type, .attributes = {}};
  return 0;
}
API int cudnnBackendDestroyDescriptor(Descriptor* descriptor) {
  delete descriptor;
  return 0;
}
API int cudnnBackendSetAttribute(Descriptor* d, int attribute, int type, std::int64_t count, const void* values) {
  if (d->finalized) return kRefused;
  const auto* from = static_cast<const unsigned char*>(values);
  d->attributes[attribute] = {type, {from, from + static_cast<std::size_t>(count) * size_of(type)}};
  return 0;
}
API int cudnnBackendFinalize(Descriptor* d) {
  if (!whole(*d)) return kRefused;
  d->finalized = true;
  if (d->type == kPlan) d->operations = operations_of(*d->to(401)->to(0));
  return 0;
}
API int cudnnBackendGetAttribute(Descriptor* d, int attribute, int, std::int64_t wanted, std::int64_t* count,
                                 void* values) {
  const char* setting = std::getenv("KGEN_FAKE_CUDNN");
  if (d->type == kEngineHeur && attribute == 202) {
    if (setting != nullptr && std::string(setting) == "none") {
      *count = 0;
      return 0;
    }
    *count = std::min<std::int64_t>(wanted, 3);
    for (std::int64_t i = 0; i < *count; ++i) {
      auto* config = static_cast<Descriptor**>(values)[i];
      if (config == nullptr || config->type != kEngineConfig) return kRefused;
      config->number = static_cast<int>(i) + 1;  // the second one's plan is refused
      config->attributes[0] = {15, {}};
      Descriptor* graph = d->one<Descriptor*>(201);
      config->attributes[0].bytes.resize(sizeof graph);
      std::memcpy(config->attributes[0].bytes.data(), &graph, sizeof graph);
    }
    return 0;
  }
  if (d->type == kPlan && attribute == 402) {
    *static_cast<std::int64_t*>(values) = 512;
    *count = 1;
    return 0;
  }
  return kUnsupported;
}

API int cudnnBackendExecute(void* handle, Descriptor* plan, Descriptor* pack) {
  if (handle != &handle_of_all || !plan->finalized || !pack->finalized) return kRefused;
  const auto ids = pack->all<std::int64_t>(1000);
  const auto pointers = pack->all<void*>(1001);
  void* workspace = pack->one<void*>(1003);
  if (workspace == nullptr) return kRefused;
  std::memset(workspace, 0, 512);
  std::map<std::int64_t, std::vector<float>> between;
  const auto bind = [&](View& tensor) {
    if (tensor.intermediate) {
      std::int64_t last = 1;
      for (std::size_t i = 0; i < 4; ++i) last += (tensor.dims[i] - 1) * tensor.strides[i];
      auto& buffer = between[tensor.id];
      buffer.resize(static_cast<std::size_t>(last));
      tensor.data = buffer.data();
      return true;
    }
    const auto at = std::find(ids.begin(), ids.end(), tensor.id);
    if (at == ids.end()) return false;
    tensor.data = static_cast<float*>(pointers[static_cast<std::size_t>(at - ids.begin())]);
    return true;
  };
  for (Operation op : plan->operations) {
    if (!bind(op.x) || !bind(op.y) || (op.b.id != 0 && !bind(op.b))) return kRefused;
    const auto& size = op.y.dims;
    const bool conv = op.mode < 0;
    const std::int64_t channels = conv ? op.b.dims[1] : 0;
    if (conv && (op.b.dims[0] != size[1] || op.x.dims[1] % channels != 0)) return kRefused;
    const std::int64_t groups = conv ? op.x.dims[1] / channels : 1;
    for (std::int64_t n = 0; n < size[0]; ++n)
      for (std::int64_t k = 0; k < size[1]; ++k)
        for (std::int64_t p = 0; p < size[2]; ++p)
          for (std::int64_t q = 0; q < size[3]; ++q) {
            if (!conv) {
              const double b = op.b.id == 0 ? 0
                               : op.b.dims[2] == 1 && op.b.dims[0] == 1 && op.b.dims[3] == 1
                                   ? static_cast<double>(op.b.at(0, k, 0, 0))
                                   : static_cast<double>(op.b.at(n, k, p, q));
              op.y.at(n, k, p, q) = static_cast<float>(pointwise(op.mode, static_cast<double>(op.x.at(n, k, p, q)), b));
              continue;
            }
            double sum = 0;
            const std::int64_t group = k / (size[1] / groups);
            for (std::int64_t c = 0; c < channels; ++c)
              for (std::int64_t r = 0; r < op.b.dims[2]; ++r)
                for (std::int64_t t = 0; t < op.b.dims[3]; ++t) {
                  const std::int64_t h = p * op.stride[0] - op.pad[0] + r * op.dilation[0];
                  const std::int64_t w = q * op.stride[1] - op.pad[1] + t * op.dilation[1];
                  if (h < 0 || w < 0 || h >= op.x.dims[2] || w >= op.x.dims[3]) continue;
                  sum += static_cast<double>(op.x.at(n, group * channels + c, h, w)) *
                         static_cast<double>(op.b.at(k, c, r, t));
                }
            op.y.at(n, k, p, q) = static_cast<float>(sum);
          }
  }
  return 0;
}
}
