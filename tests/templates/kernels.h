// Loads the kernels of a test module into the host device and launches them. Includes nothing of the tool, whose names
// (kgen::Arch) are other things in the templates.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace kgen::testing {

struct Launch {
  std::array<std::uint32_t, 3> grid;
  std::uint32_t block;
  std::uint32_t lds_bytes;
};

class Kernels {
 public:
  explicit Kernels(const std::string& path);
  ~Kernels();

  // Waits until it is done; a fault is a test failure.
  template <class... T>
  void launch(const std::string& name, const Launch& shape, T... values) {
    void* params[] = {&values...};
    launch_params(name, shape, params);
  }

 private:
  void launch_params(const std::string& name, const Launch& shape, void** params);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kgen::testing
