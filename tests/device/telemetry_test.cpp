#include "device/telemetry.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

namespace kgen {
namespace {

namespace fs = std::filesystem;

DeviceInfo card(const char* arch, const char* uuid) {
  DeviceInfo info;
  info.arch = find_arch(arch).value();
  info.uuid = uuid;
  return info;
}

TEST(Telemetry, NvmlSaysWhatHoldsTheClockDown) {
  setenv("KGEN_NVML_LIBRARY", KGEN_FAKE_NVML, 1);
  const auto telemetry = open_telemetry(card("sm_90", "GPU-00000000-1111-2222-3333-444444444444"));
  ASSERT_NE(telemetry, nullptr);
  DeviceState state = telemetry->read();
  EXPECT_EQ(state.clock_mhz, 1755);
  EXPECT_EQ(state.temperature_c, 64);
  EXPECT_EQ(state.energy_uj, 5'000'000'000'000) << "more than 32 bits";
  EXPECT_EQ(state.throttle, "");
  EXPECT_FALSE(state.passing);

  setenv("FAKE_NVML_REASONS", "0x1", 1);  // idle: nothing holds it down
  EXPECT_EQ(telemetry->read().throttle, "");
  setenv("FAKE_NVML_REASONS", "0x4", 1);
  state = telemetry->read();
  EXPECT_EQ(state.throttle, "power cap");
  EXPECT_FALSE(state.passing) << "waiting does not help";
  setenv("FAKE_NVML_REASONS", "0x68", 1);
  state = telemetry->read();
  EXPECT_EQ(state.throttle, "thermal");
  EXPECT_TRUE(state.passing);
  setenv("FAKE_NVML_REASONS", "0x84", 1);
  state = telemetry->read();
  EXPECT_EQ(state.throttle, "power cap, power brake");
  EXPECT_TRUE(state.passing);
  unsetenv("FAKE_NVML_REASONS");

  EXPECT_EQ(open_telemetry(card("sm_90", "GPU-another")), nullptr);
  setenv("KGEN_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so", 1);
  EXPECT_EQ(open_telemetry(card("sm_90", "GPU-00000000-1111-2222-3333-444444444444")), nullptr);
  unsetenv("KGEN_NVML_LIBRARY");
}

TEST(Telemetry, AmdgpuFilesOfTheKernel) {
  const fs::path root = fs::temp_directory_path() / ("kgen_telemetry." + std::to_string(getpid()));
  const fs::path folder = root / "bus/pci/devices/0000:c1:00.0";
  fs::create_directories(folder / "hwmon/hwmon3");
  setenv("KGEN_SYSFS", root.c_str(), 1);
  const auto write = [&](const char* name, const std::string& text) { std::ofstream(folder / name) << text; };
  write("hwmon/hwmon3/freq1_input", "2124000000\n");
  write("hwmon/hwmon3/temp1_input", "51000\n");
  const auto telemetry = open_telemetry(card("gfx1100", "0000:c1:00.0"));
  ASSERT_NE(telemetry, nullptr);
  DeviceState state = telemetry->read();
  EXPECT_EQ(state.clock_mhz, 2124);
  EXPECT_EQ(state.temperature_c, 51);
  EXPECT_FALSE(state.energy_uj);
  EXPECT_EQ(state.throttle, "");

  write("hwmon/hwmon3/temp2_input", "63000\n");
  EXPECT_EQ(telemetry->read().temperature_c, 63) << "the hot spot, where there is one";

  std::string table(120, '\0');  // struct gpu_metrics_v1_3
  const std::uint64_t energy = 65536;
  const std::uint32_t throttle = 0x20;
  table[2] = 1, table[3] = 3;
  std::memcpy(&table[24], &energy, sizeof energy);
  std::memcpy(&table[68], &throttle, sizeof throttle);
  write("gpu_metrics", table);
  state = telemetry->read();
  EXPECT_EQ(state.energy_uj, 1000013);
  EXPECT_EQ(state.throttle, "status 0x20");
  EXPECT_TRUE(state.passing);

  write("hwmon/hwmon3/energy1_input", "77000000\n");
  EXPECT_EQ(telemetry->read().energy_uj, 77000000) << "the counter of its own, where there is one";

  table[3] = 0;  // another layout: nothing is read from it
  write("gpu_metrics", table);
  EXPECT_EQ(telemetry->read().throttle, "");
  write("gpu_metrics", table.substr(0, 40));
  EXPECT_EQ(telemetry->read().throttle, "");

  EXPECT_EQ(open_telemetry(card("gfx1100", "0000:c2:00.0")), nullptr);
  unsetenv("KGEN_SYSFS");
  fs::remove_all(root);
}

TEST(Telemetry, TheHostHasNone) { EXPECT_EQ(open_telemetry(card("host", "")), nullptr); }

}  // namespace
}  // namespace kgen
