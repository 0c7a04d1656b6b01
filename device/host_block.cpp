#include "device/host_block.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <boost/context/detail/fcontext.hpp>
#include <cerrno>
#include <cstring>
#include <new>

// There in programs that are built with a sanitizer, null in others. The sanitizers must know which stack is in use.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, std::size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* fake_stack_save, const void** bottom,
                                                           std::size_t* size);
__attribute__((weak)) void __asan_poison_memory_region(const volatile void* address, std::size_t size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* address, std::size_t size);
__attribute__((weak)) void* __tsan_get_current_fiber(void);
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
}

namespace kgen::host {
namespace {

using boost::context::detail::fcontext_t;
using boost::context::detail::transfer_t;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStackBytes = kHostStackStride - kPage;
// Each guarded stack splits a mapping, of which Linux allows a process 65530; past this many, stacks stand side by
// side.
constexpr int kGuardedStacks = 16384;
std::atomic<int> guarded_stacks{0};

// Bytes before and behind a block's LDS that it must leave alone.
constexpr std::size_t kLdsGuard = 256;
constexpr auto kLdsGuardBytes = [] {
  std::array<unsigned char, kLdsGuard> bytes{};
  bytes.fill(0xA5);
  return bytes;
}();
constexpr int kLdsPoison = 0xFF;  // NaN in every floating type

std::byte* reserve_slab() {
  void* whole = mmap(nullptr, 2 * kHostSlabBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(whole);
  const std::size_t head = (kHostSlabBytes - reinterpret_cast<std::uintptr_t>(begin) % kHostSlabBytes) % kHostSlabBytes;
  if (head > 0) munmap(begin, head);
  munmap(begin + head + kHostSlabBytes, kHostSlabBytes - head);
  if (mprotect(begin + head, kPage, PROT_READ | PROT_WRITE) != 0) {
    munmap(begin + head, kHostSlabBytes);
    return nullptr;
  }
  return begin + head;
}

void unpoison(const void* begin, std::size_t bytes) {
  if (begin != nullptr && __asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(begin, bytes);
}

}  // namespace

struct Fiber {
  BlockRunner* runner = nullptr;
  HostItem* item = nullptr;
  Fiber* next = nullptr;
  fcontext_t context = nullptr;
  std::byte* stack = nullptr;
  bool guarded = false;
  void* fake_stack = nullptr;  // this and the following for the sanitizers
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  void* tsan = nullptr;

  static void start(transfer_t from);
};

void BlockRunner::Queue::push(Fiber* fiber) {
  fiber->next = nullptr;
  if (tail != nullptr) {
    tail->next = fiber;
  } else {
    head = fiber;
  }
  tail = fiber;
}

Fiber* BlockRunner::Queue::pop() {
  Fiber* fiber = head;
  if (fiber != nullptr) {
    head = fiber->next;
    if (head == nullptr) tail = nullptr;
  }
  return fiber;
}

void BlockRunner::Queue::splice(Queue& from) {
  if (from.head == nullptr) return;
  if (tail != nullptr) {
    tail->next = from.head;
  } else {
    head = from.head;
  }
  tail = from.tail;
  from = Queue{};
}

BlockRunner::BlockRunner(bool reverse)
    : reverse_(reverse),
      slab_(reserve_slab()),
      items_(kMaxBlock + 1),
      main_(std::make_unique<Fiber>()),
      lds_(nullptr, [](void* p) { ::operator delete(p, std::align_val_t{kLdsGuard}); }) {
  if (slab_ == nullptr) return;
  *reinterpret_cast<HostItem**>(slab_) = items_.data();
  main_->runner = this;
}

BlockRunner::~BlockRunner() {
  for (const auto& fiber : fibers_) {
    if (__tsan_destroy_fiber != nullptr) __tsan_destroy_fiber(fiber->tsan);
    unpoison(fiber->stack, kStackBytes);
    if (fiber->guarded) --guarded_stacks;
  }
  unpoison(lds_.get(), lds_capacity_);
  if (slab_ != nullptr) munmap(slab_, kHostSlabBytes);
}

const HostCalls& BlockRunner::calls() {
  static constexpr HostCalls kCalls = {[](HostItem* item) {
                                         auto* self = static_cast<Fiber*>(item->fiber);
                                         self->runner->sync_block(self);
                                       },
                                       [](HostItem* item, std::uint32_t value, std::uint32_t lane) {
                                         auto* self = static_cast<Fiber*>(item->fiber);
                                         return self->runner->shuffle(self, value, lane);
                                       }};
  return kCalls;
}

// Arrival on `self`'s stack, coming from `from`.
__attribute__((no_sanitize("thread"))) void BlockRunner::enter(Fiber* self, Fiber* from) {
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(self->fake_stack, &from->bottom, &from->bytes);
}

__attribute__((no_sanitize("thread"))) void BlockRunner::switch_to(Fiber* from, Fiber* to) {
  if (__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->bytes);
  if (__tsan_switch_to_fiber != nullptr) __tsan_switch_to_fiber(to->tsan, 0);
  const transfer_t arrival = boost::context::detail::jump_fcontext(to->context, from);
  auto* previous = static_cast<Fiber*>(arrival.data);
  previous->context = arrival.fctx;
  enter(from, previous);
}

__attribute__((no_sanitize("thread"))) void Fiber::start(transfer_t arrival) {
  auto* previous = static_cast<Fiber*>(arrival.data);
  previous->context = arrival.fctx;
  // The stack tells whose it is, as in the kernel.
  const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const std::size_t index = frame % kHostSlabBytes / kHostStackStride;
  auto* self = static_cast<Fiber*>((*reinterpret_cast<HostItem**>(frame - frame % kHostSlabBytes))[index].fiber);
  BlockRunner::enter(self, previous);
  self->runner->loop(self);
}

void BlockRunner::reset(Fiber* fiber) {
  unpoison(fiber->stack, kStackBytes);
  fiber->fake_stack = nullptr;
  fiber->bottom = fiber->stack;
  fiber->bytes = kStackBytes;
  if (fiber->tsan != nullptr) __tsan_destroy_fiber(fiber->tsan);
  if (__tsan_create_fiber != nullptr) fiber->tsan = __tsan_create_fiber(0);
  // Stacks begin at different places of a page, or the hot ends of all of them would meet in the same sets of the L1
  // cache.
  const std::size_t colour = (fiber->item - items_.data()) * 320 % kPage / 64 * 64;
  const std::size_t usable = kStackBytes - colour;
  fiber->context = boost::context::detail::make_fcontext(fiber->stack + usable, usable, Fiber::start);
}

Fiber* BlockRunner::free_fiber() {
  if (!free_.empty()) {
    Fiber* fiber = free_.back();
    free_.pop_back();
    return fiber;
  }
  auto fiber = std::make_unique<Fiber>();
  const std::size_t index = fibers_.size() + 1;  // place 0 of the slab holds the pointer to the items
  fiber->runner = this;
  fiber->item = &items_[index];
  fiber->stack = slab_ + index * kHostStackStride + kPage;
  fiber->guarded = guarded_stacks++ < kGuardedStacks;
  if (!fiber->guarded) --guarded_stacks;
  std::byte* begin = fiber->guarded ? fiber->stack : fiber->stack - kPage;
  const std::size_t bytes = fiber->stack + kStackBytes - begin;
  if (mprotect(begin, bytes, PROT_READ | PROT_WRITE) != 0) {
    stack_error_ = fmt::format("no memory for the stack of work-item {}: {}", index, std::strerror(errno));
    if (fiber->guarded) --guarded_stacks;
    return nullptr;
  }
  items_[index] = {&block_, fiber.get(), 0};
  reset(fiber.get());
  fibers_.push_back(std::move(fiber));
  return fibers_.back().get();
}

// Work-items one after another; those that wait leave the loop to other fibers in between.
void BlockRunner::loop(Fiber* self) {
  for (;;) {
    while (started_ < block_.size) {
      self->item->thread = reverse_ ? block_.size - 1 - started_ : started_;
      ++started_;
      entry_(params_);
      ++finished_;
    }
    free_.push_back(self);
    Fiber* next = ready_.pop();
    switch_to(self, next != nullptr ? next : main_.get());
  }
}

// To whoever can run; the main context finds out why nobody can.
void BlockRunner::wait(Fiber* self) {
  Fiber* next = ready_.pop();
  if (next == nullptr && started_ < block_.size) next = free_fiber();
  if (next == nullptr) next = main_.get();
  switch_to(self, next);
}

void BlockRunner::sync_block(Fiber* self) {
  if (++at_barrier_ == block_.size) {
    at_barrier_ = 0;
    ready_.splice(barrier_);
    return;
  }
  barrier_.push(self);
  wait(self);
}

std::uint32_t BlockRunner::shuffle(Fiber* self, std::uint32_t value, std::uint32_t lane) {
  const std::uint32_t thread = self->item->thread;
  Wave& wave = waves_[thread / kWaveSize];
  const std::uint32_t phase = wave.phase;
  wave.values[phase][thread % kWaveSize] = value;
  if (++wave.arrived == wave.lanes) {
    wave.arrived = 0;
    wave.phase = 1 - phase;
    ready_.splice(wave.waiting);
  } else {
    wave.waiting.push(self);
    wait(self);
  }
  lane %= kWaveSize;
  return lane < wave.lanes ? wave.values[phase][lane] : value;
}

void BlockRunner::prepare_lds(std::uint32_t bytes) {
  const std::size_t need = kLdsGuard + (bytes + kLdsGuard - 1) / kLdsGuard * kLdsGuard + kLdsGuard;
  unpoison(lds_.get(), lds_capacity_);
  if (need > lds_capacity_) {
    lds_.reset(static_cast<std::byte*>(::operator new(need, std::align_val_t{kLdsGuard})));
    lds_capacity_ = need;
  }
  std::byte* base = lds_.get() + kLdsGuard;
  std::memcpy(base - kLdsGuard, kLdsGuardBytes.data(), kLdsGuard);
  std::memset(base, kLdsPoison, bytes);
  std::memcpy(base + bytes, kLdsGuardBytes.data(), kLdsGuard);
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(base - kLdsGuard, kLdsGuard);
    __asan_poison_memory_region(base + bytes, lds_capacity_ - kLdsGuard - bytes);
  }
  block_.lds = reinterpret_cast<unsigned char*>(base);
}

bool BlockRunner::lds_guards_intact(std::uint32_t bytes) {
  unpoison(lds_.get(), lds_capacity_);
  return std::memcmp(block_.lds - kLdsGuard, kLdsGuardBytes.data(), kLdsGuard) == 0 &&
         std::memcmp(block_.lds + bytes, kLdsGuardBytes.data(), kLdsGuard) == 0;
}

std::string BlockRunner::run(HostEntry entry, void** params, const LaunchShape& shape, const std::uint32_t index[3]) {
  entry_ = entry;
  params_ = params;
  std::copy_n(index, 3, block_.index);
  std::copy_n(shape.grid, 3, block_.grid);
  block_.size = shape.block;
  started_ = finished_ = at_barrier_ = 0;
  for (std::uint32_t i = 0; i * kWaveSize < block_.size; ++i) {
    waves_[i].lanes = std::min(kWaveSize, block_.size - i * kWaveSize);
    waves_[i].arrived = waves_[i].phase = 0;
  }
  prepare_lds(shape.lds_bytes);

  if (__tsan_get_current_fiber != nullptr) main_->tsan = __tsan_get_current_fiber();
  stack_error_.clear();
  Fiber* first = free_fiber();
  if (first == nullptr) return stack_error_;
  switch_to(main_.get(), first);

  if (finished_ < block_.size) {
    const std::uint32_t at_shuffle = block_.size - finished_ - at_barrier_;
    std::string problem = fmt::format(
        "deadlock in block ({}, {}, {}): of {} work-items {} wait at a barrier, {} at a shuffle, {} have returned",
        index[0], index[1], index[2], block_.size, at_barrier_, at_shuffle, finished_);
    // The waiting fibers are abandoned: what lies on their stacks has no destructors.
    ready_ = barrier_ = Queue{};
    for (Wave& wave : waves_) wave.waiting = Queue{};
    free_.clear();
    for (const auto& fiber : fibers_) {
      reset(fiber.get());
      free_.push_back(fiber.get());
    }
    return stack_error_.empty() ? problem : stack_error_;
  }
  if (!lds_guards_intact(shape.lds_bytes))
    return fmt::format("block ({}, {}, {}) wrote outside its {} bytes of LDS", index[0], index[1], index[2],
                       shape.lds_bytes);
  return {};
}

}  // namespace kgen::host
