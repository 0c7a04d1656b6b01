// libkgen for C++17: handles that close themselves, typed shapes, errors as exceptions. Header only, over kgen/kgen.h;
// mixes with it freely (every handle() gives the C handle).
//
//   struct Shape { std::int64_t m, n, k; };
//   kgen::Database db("tuned.db");
//   kgen::Operator<Shape> gemm(db, "gemm", "dtype=bf16 epilogue=bias",
//                              {{"m", &Shape::m}, {"n", &Shape::n}, {"k", &Shape::k}});
//   kgen::Kernel kernel = gemm.find({64, 4096, 4096});
//   kgen::Operands operands = gemm.operands();
//   operands.set("a", a).set("b", b).set("bias", bias).set("d", d);
//   kernel.launch(operands, workspace, prepared, stream);
//
// Thread-safety is that of the C functions: all may be called from several threads, but for closing (destroying,
// assigning to) an object that another thread uses. An Operands or a Buffer belongs to one thread at a time.
#ifndef KGEN_KGEN_HPP_
#define KGEN_KGEN_HPP_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kgen/kgen.h"

namespace kgen {
inline namespace cpp0 {  // apart from the symbols inside libkgen.a

// A call that failed: what() says what is wrong and what to do.
class Error : public std::runtime_error {
 public:
  Error(kgen_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  kgen_status status() const noexcept { return status_; }

 private:
  kgen_status status_;
};

// Throws the calling thread's last failure as an Error unless `status` is KGEN_OK.
inline void check(kgen_status status) {
  if (status != KGEN_OK) throw Error(status, kgen_last_error());
}

// Version of the library that is linked, "0.1.0".
inline std::string version() { return kgen_version(); }

// A tuned DB, opened for one device: "auto", "nvidia:N", "amd:N" or "host". Movable. Operators and kernels may outlive
// it.
class Database {
 public:
  // Opens the file, "": the one that ships with kgen; throws Error (KGEN_BAD_DATABASE, KGEN_NO_DEVICE …).
  explicit Database(const std::string& path = "", const std::string& device = "auto") {
    kgen_db* opened = nullptr;
    check(kgen_open(path.empty() ? nullptr : path.c_str(), device.c_str(), &opened));
    handle_.reset(opened);
  }
  // Uses only what the owner of `key` signed ("kgen-public:…", as `kgen db keygen` prints it), added files included.
  Database(const std::string& path, const std::string& device, const std::string& key) {
    kgen_open_options options{};
    options.size = sizeof options;
    options.key = key.c_str();
    kgen_db* opened = nullptr;
    check(kgen_open_with(path.c_str(), device.c_str(), &options, &opened));
    handle_.reset(opened);
  }

  // Reads the file again where it has changed, under running threads; true where it had. Throws Error where the new
  // file cannot be used; the old one is served on.
  bool reload() {
    int changed = 0;
    check(kgen_reload(handle(), &changed));
    return changed != 0;
  }
  // Adds a file to those that are looked up; it need not exist yet.
  void add(const std::string& path) { check(kgen_add(handle(), path.c_str())); }
  // Writes down what is launched from now on, for `kgen doctor`; "" ends it.
  void record(const std::string& path) { check(kgen_record(handle(), path.empty() ? nullptr : path.c_str())); }
  // What the file has for this device, as JSON (kgen_describe); valid as long as the Database.
  const char* describe(const char* op = nullptr) const {
    const char* text = kgen_describe(handle(), op);
    if (text == nullptr) throw Error(KGEN_BAD_ARGUMENT, kgen_last_error());
    return text;
  }
  // Name of the device, "NVIDIA H100 80GB HBM3".
  std::string device_name() const { return kgen_device_name(handle()); }
  // Waits for everything on the stream and throws what an earlier launch did wrong.
  void synchronize(kgen_stream stream = nullptr) const { check(kgen_synchronize(handle(), stream)); }
  // Copies between any two of host and device memory; returns when it is done.
  void copy(void* to, const void* from, std::size_t bytes) const { check(kgen_device_copy(handle(), to, from, bytes)); }

  kgen_db* handle() const noexcept { return handle_.get(); }

 private:
  struct Close {
    void operator()(kgen_db* db) const noexcept { kgen_close(db); }
  };
  std::unique_ptr<kgen_db, Close> handle_;
};

// Device memory through the driver that the DB was opened with. Movable; must not outlive its Database.
class Buffer {
 public:
  Buffer() = default;
  // `bytes` of device memory, aligned to 256 bytes, undefined contents. Throws Error (KGEN_OUT_OF_MEMORY).
  Buffer(const Database& db, std::size_t bytes)
      : db_(db.handle()), bytes_(bytes), data_(kgen_device_alloc(db_, bytes)) {
    if (data_ == nullptr) throw Error(KGEN_OUT_OF_MEMORY, kgen_last_error());
  }
  // The same with the elements of `values` copied into it.
  template <class T>
  Buffer(const Database& db, const std::vector<T>& values) : Buffer(db, values.size() * sizeof(T)) {
    check(kgen_device_copy(db_, data_, values.data(), bytes_));
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) kgen_device_free(db_, data_);
  }

  void* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }
  // Its contents as elements of T.
  template <class T>
  std::vector<T> to_host() const {
    std::vector<T> values(bytes_ / sizeof(T));
    check(kgen_device_copy(db_, values.data(), data_, values.size() * sizeof(T)));
    return values;
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(db_, other.db_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
  }
  kgen_db* db_ = nullptr;
  std::size_t bytes_ = 0;
  void* data_ = nullptr;
};

// What a launch reads and writes: device pointers and scalars by the operator's names. Made by Operator::operands().
class Operands {
 public:
  // Sets a tensor's device pointer. Those that are not set are null, as operands must be that the problem does not
  // have. Throws Error for a name that the operator has not.
  Operands& set(const std::string& name, void* pointer) {
    tensors_[index(tensor_names_, name, "operand")] = pointer;
    return *this;
  }
  Operands& set(const std::string& name, const Buffer& buffer) { return set(name, buffer.data()); }
  // Sets a scalar; as long as none is set all have their defaults, afterwards those not set are 0.
  Operands& set_scalar(const std::string& name, double value) {
    const std::size_t at = index(scalar_names_, name, "scalar");
    scalars_.resize(scalar_names_.size());
    scalars_[at] = value;
    return *this;
  }
  // Names in the operator's declared order.
  const std::vector<std::string>& tensor_names() const noexcept { return tensor_names_; }
  const std::vector<std::string>& scalar_names() const noexcept { return scalar_names_; }

  void* const* tensors() const noexcept { return tensors_.data(); }
  const double* scalars() const noexcept { return scalars_.empty() ? nullptr : scalars_.data(); }

 private:
  template <class Key>
  friend class Operator;
  static std::size_t index(const std::vector<std::string>& names, const std::string& name, const char* what) {
    std::string known;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i] == name) return i;
      known += (i == 0 ? "" : ", ") + names[i];
    }
    throw Error(KGEN_BAD_ARGUMENT, std::string("the operator has no ") + what + " '" + name + "' (" + known + ")");
  }
  std::vector<std::string> tensor_names_, scalar_names_;
  std::vector<void*> tensors_;
  std::vector<double> scalars_;
};

// A kernel bound to one shape. A value; valid until its Operator is destroyed.
class Kernel {
 public:
  explicit Kernel(const kgen_match& match) : match_(match) {}

  // How it was chosen: exact, near, dynamic, default.
  kgen_match_kind kind() const noexcept { return match_.kind; }
  // One line: "near: tuned at m=5476, legal for m=5480".
  const char* reason() const noexcept { return match_.reason; }
  // The candidate: "matrix tile_m=128 …".
  const char* config() const noexcept { return match_.config; }
  // Microseconds that were measured at the shape it was tuned for; 0: not known.
  double tuned_time_us() const noexcept { return match_.tuned_time_us; }
  // How much slower than the best kernel it is expected to be: 0.02 = 2 %; negative: not known.
  double expected_loss() const noexcept { return kgen_expected_loss(match_.kernel); }
  // Device memory that launch() and prepare() need, aligned to 256 bytes; 0: none.
  std::size_t workspace_bytes() const noexcept { return match_.workspace_bytes; }
  std::size_t prepared_bytes() const noexcept { return match_.prepared_bytes; }

  // Loads the code object now, so that the first launch need not; before a graph capture.
  void preload() const { check(kgen_preload(match_.kernel)); }
  // Repacks weights into `prepared` (prepared_bytes()), once a weight; nothing where that is 0.
  void prepare(const Operands& operands, void* prepared, kgen_stream stream = nullptr) const {
    check(kgen_prepare(match_.kernel, operands.tensors(), prepared, stream));
  }
  // Launches in stream order and does not wait. Throws Error: KGEN_MISALIGNED, KGEN_BAD_ARGUMENT with the operand's
  // name …
  void launch(const Operands& operands, void* workspace = nullptr, const void* prepared = nullptr,
              kgen_stream stream = nullptr) const {
    check(kgen_launch(match_.kernel, operands.tensors(), operands.scalars(), workspace, prepared, stream));
  }

  const kgen_kernel* handle() const noexcept { return match_.kernel; }

 private:
  kgen_match match_;
};

// An operator with its attributes, asked for by shapes of type Key: a struct of the caller with a std::int64_t for each
// dim that it names. Movable.
template <class Key>
class Operator {
 public:
  // A dim of the operator and the member that has its size.
  struct Dim {
    const char* name;
    std::int64_t Key::* member;
  };

  // Opens `op` with `attributes` as in ops.yaml ("dtype=bf16 epilogue=bias,silu"; what is left out takes its default).
  // Dims that are not named take their defaults. `goal` says what kernels shall be best at. Throws Error.
  Operator(const Database& db, const std::string& op, const std::string& attributes, std::initializer_list<Dim> dims,
           const kgen_goal* goal = nullptr) {
    std::string names;
    for (const Dim& dim : dims) {
      names += (members_.empty() ? "" : ",") + std::string(dim.name);
      members_.push_back(dim.member);
    }
    if (members_.size() > kMostDims) throw Error(KGEN_BAD_ARGUMENT, "an operator has at most 32 dims");
    kgen_op* opened = nullptr;
    check(kgen_open_op_for(db.handle(), op.c_str(), attributes.c_str(), names.c_str(), goal, &opened));
    handle_.reset(opened);
  }

  // The kernel for a shape; throws Error (KGEN_NOT_FOUND, KGEN_REFUSED) with the reasons where there is none. A shape
  // that was asked for before costs no lock, no allocation and no file access.
  Kernel find(const Key& shape) const {
    kgen_match match;
    check(find(shape, match));
    return Kernel(match);
  }
  // The same without exceptions; match.reason says why where the status is not KGEN_OK.
  kgen_status find(const Key& shape, kgen_match& match) const noexcept {
    std::int64_t values[kMostDims];
    for (std::size_t i = 0; i < members_.size(); ++i) values[i] = shape.*members_[i];
    return kgen_find(handle(), values, &match);
  }
  // Operands of a launch, all unset.
  Operands operands() const {
    Operands made;
    for (int i = 0; i < kgen_tensor_count(handle()); ++i)
      made.tensor_names_.emplace_back(kgen_tensor_name(handle(), i));
    for (int i = 0; i < kgen_scalar_count(handle()); ++i)
      made.scalar_names_.emplace_back(kgen_scalar_name(handle(), i));
    made.tensors_.resize(made.tensor_names_.size());
    return made;
  }

  kgen_op* handle() const noexcept { return handle_.get(); }

 private:
  static constexpr std::size_t kMostDims = 32;
  struct Close {
    void operator()(kgen_op* op) const noexcept { kgen_close_op(op); }
  };
  std::unique_ptr<kgen_op, Close> handle_;
  std::vector<std::int64_t Key::*> members_;
};

}  // namespace cpp0
}  // namespace kgen
#endif  // KGEN_KGEN_HPP_
