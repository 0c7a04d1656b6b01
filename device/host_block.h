// Runs the work-items of one block as fibers of the calling thread, one after another between barriers.
//
// A work-item that meets no barrier runs to its end and its fiber goes on with the next one, so a kernel without
// barriers costs no switch. Barriers take the whole block, shuffles the whole wave of 32; a work-item that returned or
// waits elsewhere makes them impossible, which is reported and not waited for (GPUs differ here: what is reported may
// hang there).
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "device/host_abi.h"

namespace kgen::host {

struct Fiber;

class BlockRunner {
 public:
  // Not thread-safe: each thread owns its runner. The order in which work-items start is reversed on request, which
  // shows some missing barriers that the usual order hides.
  explicit BlockRunner(bool reverse);
  ~BlockRunner();
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;

  // False when the stacks could not be reserved.
  bool usable() const { return slab_ != nullptr; }

  // Runs block `index`. Empty, or what went wrong. `shape.block` is at most kMaxBlock.
  std::string run(HostEntry entry, void** params, const LaunchShape& shape, const std::uint32_t index[3]);

  static const HostCalls& calls();

 private:
  // A queue of fibers, linked through them.
  struct Queue {
    Fiber* head = nullptr;
    Fiber* tail = nullptr;
    void push(Fiber* fiber);
    Fiber* pop();
    void splice(Queue& from);  // appends and empties `from`
  };
  struct Wave {
    std::uint32_t lanes = 0, arrived = 0, phase = 0;
    std::uint32_t values[2][kWaveSize] = {};  // a lane may be one shuffle ahead of another, never two
    Queue waiting;
  };

  void sync_block(Fiber* self);
  std::uint32_t shuffle(Fiber* self, std::uint32_t value, std::uint32_t lane);
  void loop(Fiber* self);
  void wait(Fiber* self);
  Fiber* free_fiber();  // null, and stack_error_ says why
  void reset(Fiber* fiber);
  static void enter(Fiber* self, Fiber* from);
  static void switch_to(Fiber* from, Fiber* to);
  friend struct Fiber;

  void prepare_lds(std::uint32_t bytes);
  bool lds_guards_intact(std::uint32_t bytes);

  const bool reverse_;
  std::byte* slab_ = nullptr;
  std::vector<HostItem> items_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::unique_ptr<Fiber> main_;
  std::vector<Fiber*> free_;

  HostEntry entry_ = nullptr;
  void** params_ = nullptr;
  HostBlock block_{};
  std::uint32_t started_ = 0, finished_ = 0, at_barrier_ = 0;
  Queue ready_, barrier_;
  std::string stack_error_;
  std::array<Wave, kMaxBlock / kWaveSize> waves_;

  std::unique_ptr<std::byte, void (*)(void*)> lds_;
  std::size_t lds_capacity_ = 0;
};

}  // namespace kgen::host
