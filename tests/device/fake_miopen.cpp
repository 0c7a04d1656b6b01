// A stand-in for libMIOpen in host memory: fp32 convolutions by strides, and a bias as an operator of its own, so that
// the calls of device/vendor_miopen.cpp are held to what they mean.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kBadParam = 3;
int handle_of_all = 0;

struct Tensor {
  std::array<int, 4> lengths{}, strides{};
  template <class T>
  T& at(T* data, int n, int c, int h, int w) const {
    return data[std::int64_t{n} * strides[0] + std::int64_t{c} * strides[1] + std::int64_t{h} * strides[2] +
                std::int64_t{w} * strides[3]];
  }
};
struct Convolution {
  std::array<int, 2> pad{}, stride{}, dilation{};
  int groups = 1;
};
struct Solution {
  float time = 0;
  std::size_t workspace = 0;
  std::uint64_t id = 0;
  int algorithm = 0;
};

}  // namespace

extern "C" {
#define API __attribute__((visibility("default")))

API int miopenGetVersion(std::size_t* major, std::size_t* minor, std::size_t* patch) {
  *major = 3, *minor = 4, *patch = 0;
  return 0;
}
API int miopenCreate(void** handle) {
  *handle = &handle_of_all;
  return 0;
}
API int miopenSetStream(void* handle, void*) { return handle == &handle_of_all ? 0 : kBadParam; }
API int miopenCreateTensorDescriptor(Tensor** tensor) {
  *tensor = new Tensor;
  return 0;
}
API int miopenDestroyTensorDescriptor(Tensor* tensor) {
  delete tensor;
  return 0;
}
API int miopenSetTensorDescriptor(Tensor* tensor, int type, int dims, const int* lengths, const int* strides) {
  if (type != 1 || dims != 4) return kBadParam;  // miopenFloat
  std::memcpy(tensor->lengths.data(), lengths, sizeof tensor->lengths);
  std::memcpy(tensor->strides.data(), strides, sizeof tensor->strides);
  return 0;
}
API int miopenCreateConvolutionDescriptor(Convolution** convolution) {
  *convolution = new Convolution;
  return 0;
}
API int miopenDestroyConvolutionDescriptor(Convolution* convolution) {
  delete convolution;
  return 0;
}
API int miopenInitConvolutionNdDescriptor(Convolution* convolution, int dims, const int* pads, const int* strides,
                                          const int* dilations, int mode) {
  if (dims != 2 || mode != 0) return kBadParam;
  convolution->pad = {pads[0], pads[1]};
  convolution->stride = {strides[0], strides[1]};
  convolution->dilation = {dilations[0], dilations[1]};
  return 0;
}
API int miopenSetConvolutionGroupCount(Convolution* convolution, int groups) {
  convolution->groups = groups;
  return 0;
}
API int miopenConvolutionForwardGetSolution(void*, const Tensor* w, const Tensor* x, const Convolution* convolution,
                                            const Tensor* y, std::size_t wanted, std::size_t* count,
                                            Solution* solutions) {
  if (wanted < 2 || w->lengths[1] * convolution->groups != x->lengths[1] || w->lengths[0] != y->lengths[1])
    return kBadParam;
  solutions[0] = {.workspace = 256, .id = 11};
  solutions[1] = {.workspace = 0, .id = 12};
  *count = 2;
  return 0;
}
API int miopenConvolutionForwardCompileSolution(void*, const Tensor*, const Tensor*, const Convolution*, const Tensor*,
                                                std::uint64_t id) {
  return id == 11 ? 0 : kBadParam;  // the other one does not compile
}
API int miopenConvolutionForwardImmediate(void* handle, const Tensor* wd, const float* w, const Tensor* xd,
                                          const float* x, const Convolution* how, const Tensor* yd, float* y,
                                          void* workspace, std::size_t workspace_bytes, std::uint64_t id) {
  if (handle != &handle_of_all || id != 11 || workspace == nullptr || workspace_bytes < 256) return kBadParam;
  std::memset(workspace, 0, 256);
  const int per_group = yd->lengths[1] / how->groups;
  for (int n = 0; n < yd->lengths[0]; ++n)
    for (int k = 0; k < yd->lengths[1]; ++k)
      for (int p = 0; p < yd->lengths[2]; ++p)
        for (int q = 0; q < yd->lengths[3]; ++q) {
          double sum = 0;
          for (int c = 0; c < wd->lengths[1]; ++c)
            for (int r = 0; r < wd->lengths[2]; ++r)
              for (int s = 0; s < wd->lengths[3]; ++s) {
                const int row = p * how->stride[0] - how->pad[0] + r * how->dilation[0];
                const int column = q * how->stride[1] - how->pad[1] + s * how->dilation[1];
                if (row < 0 || column < 0 || row >= xd->lengths[2] || column >= xd->lengths[3]) continue;
                sum += static_cast<double>(xd->at(x, n, k / per_group * wd->lengths[1] + c, row, column)) *
                       static_cast<double>(wd->at(w, k, c, r, s));
              }
          yd->at(y, n, k, p, q) = static_cast<float>(sum);
        }
  return 0;
}
API int miopenConvolutionForwardBias(void*, const float* alpha, const Tensor* bd, const float* b, const float* beta,
                                     const Tensor* yd, float* y) {
  if (*alpha != 1 || *beta != 0 || bd->lengths[1] != yd->lengths[1]) return kBadParam;
  for (int n = 0; n < yd->lengths[0]; ++n)
    for (int k = 0; k < yd->lengths[1]; ++k)
      for (int p = 0; p < yd->lengths[2]; ++p)
        for (int q = 0; q < yd->lengths[3]; ++q) yd->at(y, n, k, p, q) += bd->at(b, 0, k, 0, 0);
  return 0;
}
}
