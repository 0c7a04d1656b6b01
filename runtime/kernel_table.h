// Shapes that an operator handle was asked for, by value.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

struct kgen_kernel;

namespace kgen {

// Open addressing; a slot holds the kernel and the shape itself, so that a hit touches one line of the table and one of
// the kernel. Readers take no lock: they see a table that only ever gains entries, or the table before it. Outgrown
// tables stay, all together no larger than the present one.
class KernelTable {
 public:
  explicit KernelTable(std::size_t dims) : dims_(dims) { grow(64); }

  // Null where the shape was not inserted yet. From any thread.
  kgen_kernel* find(const std::int64_t* values) const {
    const Table& table = *table_.load(std::memory_order_acquire);
    for (std::size_t i = hash(values) & table.mask;; i = (i + 1) & table.mask) {
      const std::atomic<std::uint64_t>* slot = &table.words[i * (dims_ + 1)];
      const std::uint64_t kernel = slot[0].load(std::memory_order_acquire);
      if (kernel == 0 || same(slot + 1, values)) return reinterpret_cast<kgen_kernel*>(kernel);
    }
  }

  // The caller holds a lock against other inserts and has seen that the values are not there. The kernel stays the
  // caller's.
  void insert(const std::int64_t* values, kgen_kernel* kernel) {
    if (2 * (count_ + 1) > tables_.back()->mask + 1) grow(2 * (tables_.back()->mask + 1));
    place(*tables_.back(), values, kernel);
    ++count_;
  }

 private:
  struct Table {
    Table(std::size_t size, std::size_t stride)
        : mask(size - 1), words(std::make_unique<std::atomic<std::uint64_t>[]>(size * stride)) {}
    std::size_t mask;
    std::unique_ptr<std::atomic<std::uint64_t>[]> words;  // a slot: the kernel, 0 where it is free, and its values
  };

  std::size_t hash(const std::int64_t* values) const {
    std::uint64_t h = 0x9e3779b97f4a7c15;
    for (std::size_t i = 0; i < dims_; ++i) {
      h = (h ^ static_cast<std::uint64_t>(values[i])) * 0xff51afd7ed558ccd;
      h ^= h >> 32;
    }
    return h;
  }
  bool same(const std::atomic<std::uint64_t>* stored, const std::int64_t* values) const {
    for (std::size_t i = 0; i < dims_; ++i) {
      if (stored[i].load(std::memory_order_relaxed) != static_cast<std::uint64_t>(values[i])) return false;
    }
    return true;
  }
  void place(Table& table, const std::int64_t* values, kgen_kernel* kernel) const {
    std::size_t i = hash(values) & table.mask;
    while (table.words[i * (dims_ + 1)].load(std::memory_order_relaxed) != 0) i = (i + 1) & table.mask;
    std::atomic<std::uint64_t>* slot = &table.words[i * (dims_ + 1)];
    for (std::size_t d = 0; d < dims_; ++d)
      slot[d + 1].store(static_cast<std::uint64_t>(values[d]), std::memory_order_relaxed);
    slot[0].store(reinterpret_cast<std::uint64_t>(kernel), std::memory_order_release);
  }
  void grow(std::size_t size) {
    auto table = std::make_unique<Table>(size, dims_ + 1);
    if (!tables_.empty()) {
      const Table& old = *tables_.back();
      std::vector<std::int64_t> values(dims_);
      for (std::size_t i = 0; i <= old.mask; ++i) {
        const std::atomic<std::uint64_t>* slot = &old.words[i * (dims_ + 1)];
        const std::uint64_t kernel = slot[0].load(std::memory_order_relaxed);
        if (kernel == 0) continue;
        for (std::size_t d = 0; d < dims_; ++d)
          values[d] = static_cast<std::int64_t>(slot[d + 1].load(std::memory_order_relaxed));
        place(*table, values.data(), reinterpret_cast<kgen_kernel*>(kernel));
      }
    }
    tables_.push_back(std::move(table));
    table_.store(tables_.back().get(), std::memory_order_release);
  }

  std::size_t dims_, count_ = 0;
  std::vector<std::unique_ptr<Table>> tables_;
  std::atomic<const Table*> table_ = nullptr;
};

}  // namespace kgen
