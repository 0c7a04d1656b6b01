// A stand-in for libcuda and libamdhip64 in host memory: enough of their behaviour to hold the GPU launch path to its
// promises (which device is current, which launches need permission for their LDS, what a fault does to later calls).
//
// It takes two kinds of code object: a text that names the kernels which are written into it (kCode), and shared
// objects for the host device, which it runs as that does, so that whole tunes go through the launch path.
// tests/device/fake_clang makes the latter out of sources for gfx1030 and sm_70, whose waves are as wide as the host's
// and which have no matrix instructions. tests/device/fault_script.h says how faults are put in its way. In the
// environment:
//   KGEN_FAKE_DEVICES  how many devices there are (2; 8 at most), all alike but for their ids
//   KGEN_FAKE_ARCH     gfx1030, or 70 for sm_70
//   KGEN_FAKE_SKIP     kernels that are not run: read_all,displace_code, which displace caches that are not there
#pragma once

#include <cstddef>
#include <cstdint>

namespace fake {

// CUDA: what cuTensorMapEncodeTiled, or with `pixels` cuTensorMapEncodeIm2col, was asked for, the fastest axis first.
// Of pixels the box is channels and pixels. The map that it makes holds its number (1 for the first) in each word.
struct TensorMapCall {
  bool pixels = false;
  int type = -1;
  std::uint32_t rank = 0;
  const void* base = nullptr;
  std::uint64_t shape[5] = {}, strides[4] = {};  // strides in bytes, without the fastest axis's
  std::uint32_t box[5] = {}, steps[5] = {};
  int lower[3] = {}, upper[3] = {};
  int interleave = -1, swizzle = -1, promotion = -1, fill = -1;
};

// What a test may set. fake_control() gives the library's own.
struct Control {
  int devices = 2;
  int init_error = 0;
  const char* arch = "";            // HIP: architecture name; CUDA: "90" for sm_90
  int fail_load = 0;                // error code of the next module load
  int fail_tensor_map = 0;          // CUDA: error code of tensor maps
  void* foreign_context = nullptr;  // CUDA: a context of device 1 that the program made current

  // What the library saw.
  int launches = 0;
  unsigned grid[3] = {0, 0, 0};
  unsigned block[3] = {0, 0, 0};
  unsigned lds_bytes = 0;
  int device_of_last_launch = -1;
  int large_clusters = 0;        // CUDA: functions that may be launched in clusters of more than 8 blocks
  TensorMapCall tensor_maps[4];  // CUDA: the first of them
  int tensor_map_count = 0;
  std::uint64_t walked = 0;  // CUDA: the map that was the first parameter of the last launch of `walk`
  int primary_retains = 0, primary_releases = 0;
  int modules = 0, streams = 0, events = 0, graphs = 0, allocations = 0;  // alive
  int sticky = 0;
};

// What a code object begins with; the names of its kernels follow, separated by blanks.
inline constexpr char kCode[] = "fake code object:";

}  // namespace fake
