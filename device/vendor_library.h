// What the vendor libraries have in common; inside device/ only.
#pragma once

#include <dlfcn.h>

#include <functional>
#include <memory>
#include <string>
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

Result<std::unique_ptr<VendorLibrary>> open_cublaslt();
Result<std::unique_ptr<VendorLibrary>> open_hipblaslt();
Result<std::unique_ptr<VendorLibrary>> open_cudnn();
Result<std::unique_ptr<VendorLibrary>> open_miopen();

}  // namespace kgen::vendor
