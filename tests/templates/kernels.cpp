#include "kernels.h"

#include <gtest/gtest.h>

#include "base/text.h"
#include "device/device.h"

namespace kgen::testing {

struct Kernels::Impl {
  std::unique_ptr<Device> device;
  std::unique_ptr<Module> module;
};

Kernels::Kernels(const std::string& path) : impl_(std::make_unique<Impl>()) {
  auto device = open_device("host");
  if (!device) throw std::runtime_error(device.error().message);
  impl_->device = std::move(*device);
  const auto code = read_file(path);
  if (!code) throw std::runtime_error(code.error().message);
  auto module = impl_->device->load(std::as_bytes(std::span(code->data(), code->size())));
  if (!module) throw std::runtime_error(module.error().message);
  impl_->module = std::move(*module);
}

Kernels::~Kernels() = default;

void Kernels::launch_params(const std::string& name, const Launch& launch, void** params) {
  auto function = impl_->module->function(name);
  ASSERT_TRUE(function) << function.error().message;
  const LaunchShape shape{{launch.grid[0], launch.grid[1], launch.grid[2]}, launch.block, launch.lds_bytes};
  const auto launched = impl_->device->launch(*function, shape, params, nullptr);
  ASSERT_TRUE(launched) << name << ": " << launched.error().message;
  const auto done = impl_->device->synchronize(nullptr);
  ASSERT_TRUE(done) << name << ": " << done.error().message;
}

}  // namespace kgen::testing
