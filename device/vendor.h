// Kernels of the libraries that the device's maker ships: cuBLASLt and cuDNN on NVIDIA, hipBLASLt and MIOpen on AMD.
// They are what `kgen bench --baseline vendor` times beside a winner. The libraries are dlopened, and the few functions
// and constants that are needed are declared in device/vendor_*.cpp: nothing is needed to build.
//
// A library is looked for in each folder of $KGEN_VENDOR_PATH (separated by colons; also as FOLDER/nvidia/*/lib, where
// Python packages have theirs), then by the dynamic loader, then in $CUDA_HOME/lib64, /usr/local/cuda/lib64 and
// /opt/rocm/lib. Used by one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/plan.h"
#include "device/device.h"

namespace kgen {

enum class VendorOp { kProduct, kConvolution };
enum class VendorActivation { kNone, kRelu, kGeluTanh, kGeluErf, kSilu, kSigmoid };

// D = act(alpha * A.B + beta * addend + bias), or act(…) + addend. Operands are places among the tensors of a launch.
struct VendorCall {
  VendorOp op = VendorOp::kProduct;
  int a = -1, b = -1, bias = -1, addend = -1, d = -1;  // a convolution's: x, weight, bias, residual, y; -1: none
  DType in = DType::kFp32, out = DType::kFp32, bias_type = DType::kFp32, addend_type = DType::kFp32;
  double alpha = 1, beta = 1;
  VendorActivation activation = VendorActivation::kNone;
  bool addend_last = false;  // after the activation

  // Row-major: A [m, k], B [n, k] where b_nk, else [k, n], D [m, n]. Strides in elements.
  std::int64_t batch = 1, m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldc = 0, ldd = 0;
  std::int64_t batch_stride_a = 0, batch_stride_b = 0, batch_stride_c = 0, batch_stride_d = 0;
  bool b_nk = true;

  // Sizes and strides in the order n c h w (weight: k c r s; c of one group), whatever they are in memory.
  std::array<std::int64_t, 4> x{}, x_strides{}, weight{}, weight_strides{}, y{}, y_strides{}, addend_strides{};
  std::array<std::int64_t, 2> pad{}, stride{1, 1}, dilation{1, 1};
  std::int64_t groups = 1;
};

// One problem, ready to be launched by any of the algorithms that the library proposes for it, its first choice first.
class VendorKernel {
 public:
  virtual ~VendorKernel() = default;
  virtual int algorithms() const = 0;                // 1 at least
  virtual std::int64_t workspace_bytes() const = 0;  // of the one that needs the most
  // Enqueues one run; safe inside graph capture after a first run on the same tensors. The device is current in this
  // thread, as it is after any call of its Device.
  virtual Result<void> launch(int algorithm, std::span<DevicePtr const> tensors, DevicePtr workspace, Stream) = 0;
};

class VendorLibrary {
 public:
  virtual ~VendorLibrary() = default;
  virtual std::string name() const = 0;  // "cuBLASLt 13.0.2"
  // kBadInput, one line, for what the library does not have.
  virtual Result<std::unique_ptr<VendorKernel>> prepare(const VendorCall&) = 0;
};

// The device's library for such calls; the device must be open. kNoDevice, one line, where there is none: "no vendor
// library (libcublasLt.so.13, libcublasLt.so.12 not found)".
Result<std::unique_ptr<VendorLibrary>> open_vendor_library(const DeviceInfo&, VendorOp);

}  // namespace kgen
