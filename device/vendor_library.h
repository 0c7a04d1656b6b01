// What the vendor libraries have in common; inside device/ only.
#pragma once

#include <dlfcn.h>
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/vendor.h"

namespace kgen::vendor {

// A library that stays loaded for good.
class Library {
 public:
  explicit Library(void* handle) : handle_(handle) {}
  // Looks a function up; a name that is not there is kept for missing().
  template <class F>
  void bind(F*& function, const char* name) {
    function = reinterpret_cast<F*>(dlsym(handle_, name));
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  const std::string& missing() const { return missing_; }

 private:
  void* handle_;
  std::string missing_;
};

// The first of the names that is found and that `open` takes; else one line with all that was tried.
using Open = std::function<Result<std::unique_ptr<VendorLibrary>>(Library)>;
Result<std::unique_ptr<VendorLibrary>> find_library(const std::vector<std::string>& names, const Open& open);

// Something that the library made and takes back.
class Handle {
 public:
  Handle() = default;
  explicit Handle(int (*destroy)(void*)) : destroy_(destroy) {}
  Handle(Handle&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)), destroy_(other.destroy_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(raw_, other.raw_);
    std::swap(destroy_, other.destroy_);
    return *this;
  }
  ~Handle() {
    if (raw_ != nullptr) destroy_(raw_);
  }
  void** out() { return &raw_; }
  void* get() const { return raw_; }

 private:
  void* raw_ = nullptr;
  int (*destroy_)(void*) = nullptr;
};

// A library that was started. Api: its functions, of which `create` makes a handle.
template <class Api>
struct Loaded {
  Api api{};
  void* handle = nullptr;  // never destroyed: the process ends soon, and a device that has faulted may hang in it

  // After all functions are bound.
  Result<void> start(const Library& library) {
    if (!library.missing().empty()) return fail(ErrorKind::kNoDevice, "has no " + library.missing());
    if (const int status = api.create(&handle); status != 0)
      return fail(ErrorKind::kNoDevice, fmt::format("does not start (status {})", status));
    return {};
  }
};

// The library whose kernels are a Kernel each, made from what is loaded and a call, and then prepared.
template <class Kernel, class Of>
class LibraryOf : public VendorLibrary {
 public:
  LibraryOf(std::shared_ptr<const Of> loaded, std::string name) : loaded_(std::move(loaded)), name_(std::move(name)) {}
  std::string name() const override { return name_; }
  Result<std::unique_ptr<VendorKernel>> prepare(const VendorCall& call) override {
    auto kernel = std::make_unique<Kernel>(loaded_, call);
    KGEN_CHECK_OK(kernel->prepare());
    return kernel;
  }

 private:
  const std::shared_ptr<const Of> loaded_;
  const std::string name_;
};

Result<std::unique_ptr<VendorLibrary>> open_cublaslt();
Result<std::unique_ptr<VendorLibrary>> open_hipblaslt();
Result<std::unique_ptr<VendorLibrary>> open_cudnn();
Result<std::unique_ptr<VendorLibrary>> open_miopen();

}  // namespace kgen::vendor
