#include "device/telemetry.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace kgen {
namespace {

namespace fs = std::filesystem;

void add(std::string& list, const char* word) {
  if (!list.empty()) list += ", ";
  list += word;
}

// NVML: https://docs.nvidia.com/deploy/nvml-api/ (enumerators as in nvml.h).
class Nvml final : public Telemetry {
 public:
  static std::unique_ptr<Telemetry> open(const std::string& uuid) {
    const char* chosen = std::getenv("KGEN_NVML_LIBRARY");
    void* library = dlopen(chosen != nullptr && *chosen != '\0' ? chosen : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nullptr;
    auto nvml = std::unique_ptr<Nvml>(new Nvml);
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    int (*init)() = nullptr;
    int (*handle)(const char*, void**) = nullptr;
    if (!find(init, "nvmlInit_v2") || !find(handle, "nvmlDeviceGetHandleByUUID")) return nullptr;
    find(nvml->clock_, "nvmlDeviceGetClockInfo");
    find(nvml->temperature_, "nvmlDeviceGetTemperature");
    find(nvml->energy_, "nvmlDeviceGetTotalEnergyConsumption");
    // Renamed in driver 535; the old name stays.
    if (!find(nvml->throttle_, "nvmlDeviceGetCurrentClocksEventReasons"))
      find(nvml->throttle_, "nvmlDeviceGetCurrentClocksThrottleReasons");
    if (init() != 0 || handle(uuid.c_str(), &nvml->device_) != 0) return nullptr;
    return nvml;
  }

  DeviceState read() override {
    constexpr int kSmClock = 1, kDie = 0;
    constexpr unsigned long long kPowerCap = 0x4, kHwSlowdown = 0x8, kSync = 0x10, kSwThermal = 0x20, kHwThermal = 0x40,
                                 kPowerBrake = 0x80;
    DeviceState state;
    unsigned value = 0;
    if (clock_ != nullptr && clock_(device_, kSmClock, &value) == 0) state.clock_mhz = static_cast<int>(value);
    if (temperature_ != nullptr && temperature_(device_, kDie, &value) == 0)
      state.temperature_c = static_cast<int>(value);
    unsigned long long wide = 0;
    if (energy_ != nullptr && energy_(device_, &wide) == 0) state.energy_uj = static_cast<std::int64_t>(wide) * 1000;
    if (throttle_ != nullptr && throttle_(device_, &wide) == 0) {
      if (wide & kPowerCap) add(state.throttle, "power cap");
      if (wide & (kSwThermal | kHwThermal)) add(state.throttle, "thermal");
      if (wide & kPowerBrake) add(state.throttle, "power brake");
      if (wide & kSync) add(state.throttle, "sync boost");
      if ((wide & kHwSlowdown) && !(wide & (kHwThermal | kPowerBrake))) add(state.throttle, "hardware slowdown");
      state.passing = (wide & (kHwSlowdown | kSwThermal | kHwThermal | kPowerBrake)) != 0;
    }
    return state;
  }

 private:
  Nvml() = default;
  void* device_ = nullptr;
  int (*clock_)(void*, int, unsigned*) = nullptr;
  int (*temperature_)(void*, int, unsigned*) = nullptr;
  int (*energy_)(void*, unsigned long long*) = nullptr;  // millijoules since the driver was loaded
  int (*throttle_)(void*, unsigned long long*) = nullptr;
};

// amdgpu's hwmon files and its gpu_metrics table: https://docs.kernel.org/gpu/amdgpu/thermal.html. Read on no card yet:
// the test has files as the kernel's documentation gives them.
class Amdgpu final : public Telemetry {
 public:
  static std::unique_ptr<Telemetry> open(const std::string& pci_bus) {
    const char* chosen = std::getenv("KGEN_SYSFS");
    const fs::path root = chosen != nullptr && *chosen != '\0' ? chosen : "/sys";
    const fs::path folder = root / "bus/pci/devices" / pci_bus;
    auto card = std::unique_ptr<Amdgpu>(new Amdgpu);
    card->metrics_ = folder / "gpu_metrics";
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder / "hwmon", error)) card->sensors_ = entry.path();
    if (card->sensors_.empty() && !fs::exists(card->metrics_, error)) return nullptr;
    return card;
  }

  DeviceState read() override {
    DeviceState state;
    if (const auto hertz = number(sensors_ / "freq1_input")) state.clock_mhz = static_cast<int>(*hertz / 1000000);
    auto heat = number(sensors_ / "temp2_input");  // the hottest point; cards of old have the edge's alone
    if (!heat) heat = number(sensors_ / "temp1_input");
    if (heat) state.temperature_c = static_cast<int>(*heat / 1000);
    state.energy_uj = number(sensors_ / "energy1_input");
    // struct gpu_metrics_v1_1 to v1_3 of the kernel's kgd_pp_interface.h begin alike: 4 bytes of header (size, format,
    // content), ten 16-bit values, energy, time, fourteen clocks, throttle status.
    constexpr std::size_t kEnergy = 24, kThrottle = 68, kEnough = 72;
    std::ifstream file(metrics_, std::ios::binary);
    const std::vector<char> table{std::istreambuf_iterator<char>(file), {}};
    if (table.size() < kEnough || table[2] != 1 || table[3] < 1 || table[3] > 3) return state;
    std::uint64_t energy = 0;
    std::uint32_t throttle = 0;
    std::memcpy(&energy, &table[kEnergy], sizeof energy);
    std::memcpy(&throttle, &table[kThrottle], sizeof throttle);
    constexpr double kStep = 15.259;  // microjoules: 2^-16 J
    if (!state.energy_uj && energy != 0 && energy != ~std::uint64_t{0})
      state.energy_uj = static_cast<std::int64_t>(static_cast<double>(energy) * kStep);
    if (throttle != 0 && throttle != ~std::uint32_t{0}) {  // which bit means what differs from chip to chip
      state.throttle = fmt::format("status {:#x}", throttle);
      state.passing = true;
    }
    return state;
  }

 private:
  Amdgpu() = default;
  static std::optional<std::int64_t> number(const fs::path& path) {
    std::ifstream file(path);
    std::int64_t value = 0;
    return file >> value ? std::optional(value) : std::nullopt;
  }
  fs::path sensors_, metrics_;
};

}  // namespace

std::unique_ptr<Telemetry> open_telemetry(const DeviceInfo& info) {
  switch (info.arch->vendor) {
    case Vendor::kNvidia:
      return Nvml::open(info.uuid);
    case Vendor::kAmd:
      return Amdgpu::open(info.uuid);
    default:
      return nullptr;
  }
}

}  // namespace kgen
