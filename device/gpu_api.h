// The driver functions that the GPU launch path calls, bound from libcuda or from libamdhip64. Both drivers have them
// under other names with the same binary interface (handles are pointers, error codes and enumerators are ints); the
// few that differ stand at the end, and the other driver's are null.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/arch.h"
#include "base/result.h"

namespace kgen::gpu {

struct GpuApi {
  Vendor vendor = Vendor::kNvidia;
  const char* prefix = "";  // of device ids: "nvidia" or "amd"
  std::string library;      // as it was loaded

  int (*init)(unsigned flags) = nullptr;
  int (*driver_version)(int* version) = nullptr;
  int (*device_count)(int* count) = nullptr;
  int (*device_get)(int* device, int ordinal) = nullptr;
  int (*device_name)(char* name, int bytes, int device) = nullptr;
  int (*device_attribute)(int* value, int attribute, int device) = nullptr;
  int (*device_memory)(std::size_t* bytes, int device) = nullptr;
  int (*device_pci_bus)(char* text, int bytes, int device) = nullptr;
  int (*allocate)(void** memory, std::size_t bytes) = nullptr;
  int (*release)(void* memory) = nullptr;
  int (*fill)(void* memory, unsigned char value, std::size_t bytes, void* stream) = nullptr;
  int (*module_load)(void** module, const void* code, unsigned options, int* names, void** values) = nullptr;
  int (*module_unload)(void* module) = nullptr;
  int (*module_function)(void** function, void* module, const char* name) = nullptr;
  int (*launch)(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                unsigned lds_bytes, void* stream, void** params, void** extra) = nullptr;
  int (*stream_create)(void** stream, unsigned flags) = nullptr;
  int (*stream_destroy)(void* stream) = nullptr;
  int (*stream_synchronize)(void* stream) = nullptr;
  int (*event_create)(void** event, unsigned flags) = nullptr;
  int (*event_destroy)(void* event) = nullptr;
  int (*event_record)(void* event, void* stream) = nullptr;
  int (*event_synchronize)(void* event) = nullptr;
  int (*event_elapsed_ms)(float* ms, void* from, void* to) = nullptr;
  int (*capture_begin)(void* stream, int mode) = nullptr;
  int (*capture_end)(void* stream, void** graph) = nullptr;
  int (*graph_instantiate)(void** exec, void* graph, unsigned long long flags) = nullptr;
  int (*graph_launch)(void* exec, void* stream) = nullptr;
  int (*graph_destroy)(void* graph) = nullptr;
  int (*graph_exec_destroy)(void* exec) = nullptr;

  // CUDA alone.
  int (*cuda_context_current)(void** context) = nullptr;
  int (*cuda_context_set)(void* context) = nullptr;
  int (*cuda_context_device)(int* device) = nullptr;
  int (*cuda_primary_retain)(void** context, int device) = nullptr;
  int (*cuda_primary_release)(int device) = nullptr;
  int (*cuda_copy)(void* to, const void* from, std::size_t bytes) = nullptr;
  int (*cuda_function_attribute)(void* function, int attribute, int value) = nullptr;
  // Null in drivers before 12.0.
  int (*cuda_tensor_map)(void* map, int type, std::uint32_t rank, void* base, const std::uint64_t* shape,
                         const std::uint64_t* strides, const std::uint32_t* box, const std::uint32_t* steps,
                         int interleave, int swizzle, int promotion, int fill) = nullptr;
  int (*cuda_tensor_map_pixels)(void* map, int type, std::uint32_t rank, void* base, const std::uint64_t* shape,
                                const std::uint64_t* strides, const int* lower, const int* upper,
                                std::uint32_t channels, std::uint32_t pixels, const std::uint32_t* steps,
                                int interleave, int swizzle, int promotion, int fill) = nullptr;
  int (*cuda_uuid)(unsigned char* uuid, int device) = nullptr;
  int (*cuda_error_name)(int code, const char** name) = nullptr;
  int (*cuda_error_text)(int code, const char** text) = nullptr;

  // HIP alone.
  int (*hip_device_current)(int* device) = nullptr;
  int (*hip_device_set)(int device) = nullptr;
  int (*hip_copy)(void* to, const void* from, std::size_t bytes, int kind) = nullptr;
  int (*hip_properties)(void* properties, int device) = nullptr;
  const char* (*hip_error_name)(int code) = nullptr;
  const char* (*hip_error_text)(int code) = nullptr;

  // "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)"
  std::string error(int code) const;
};

// Loads the driver's library and initialises it. KGEN_CUDA_LIBRARY and KGEN_HIP_LIBRARY name another library to load.
// kNoDevice, one line, when it is absent, too old, or finds no device.
Result<GpuApi> load_gpu_api(Vendor vendor);

}  // namespace kgen::gpu
