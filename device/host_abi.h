// What the host device shares with a kernel that was compiled for it; templates/prelude_host.h holds the kernel's copy
// of these declarations (a kernel's source includes nothing of the tool). kHostAbi changes with any of them.
#pragma once

#include <cstdint>

namespace kgen::host {

inline constexpr std::uint32_t kHostAbi = 1;
inline constexpr std::uint64_t kHostStackStride = 65 * 4096;
inline constexpr std::uint64_t kHostSlabBytes = std::uint64_t{512} << 20;
inline constexpr std::uint32_t kWaveSize = 32;
inline constexpr std::uint32_t kMaxBlock = 1024;

struct HostBlock {
  std::uint32_t index[3];
  std::uint32_t grid[3];
  std::uint32_t size;
  unsigned char* lds;
};
struct HostItem {
  const HostBlock* block;
  void* fiber;
  std::uint32_t thread;
};
struct HostCalls {
  void (*sync_block)(HostItem* item);
  std::uint32_t (*shuffle)(HostItem* item, std::uint32_t value, std::uint32_t lane);
};
struct HostParams {
  std::uint32_t count;
  std::uint32_t bytes[128];
};

using HostEntry = void (*)(void** params);
using HostCpu = const char* (*)();
using HostBind = unsigned (*)(const HostCalls*);

}  // namespace kgen::host
