// What mma_sync.h and the asynchronous tile loop take from NVIDIA hardware, modelled on the host from the PTX manual's
// fragment tables (ldmatrix, mma.m16n8k16, cp.async). Copies arrive when they are waited for and not before.
#pragma once

#include <cstring>
#include <deque>
#include <vector>

#include "templates/mma/mma_sync.h"

namespace kgen {

KGEN_DEVICE u32 lds_address(const void* p) { return u32(static_cast<const unsigned char*>(p) - lds_base()); }

namespace testing {

struct Copy {
  u32 to;
  const void* from;
  int bytes, valid;
};
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};
// Of the present work-item; a block stays on one thread.
inline Copies& copies() {
  thread_local std::vector<Copies> items(1024);
  return items[thread_x()];
}

// Lane l of a quarter holds elements (row l/4, columns 2*(l%4), 2*(l%4)+1) of an 8x8 matrix of 16-bit elements.
struct ModelInstructions {
  static KGEN_DEVICE void load(u32 (&r)[4], int offset) {
    const int lane = lane_id();
    for (int matrix = 0; matrix < 4; ++matrix) {
      const int row = shuffle(offset, matrix * 8 + lane / 4);
      std::memcpy(&r[matrix], lds_base() + row + lane % 4 * 4, 4);
    }
  }
  static KGEN_DEVICE void load_transposed(u32 (&r)[4], int offset) {
    const int lane = lane_id();
    for (int matrix = 0; matrix < 4; ++matrix) {
      u16 pair[2];
      for (int i = 0; i < 2; ++i) {
        const int row = shuffle(offset, matrix * 8 + lane % 4 * 2 + i);
        std::memcpy(&pair[i], lds_base() + row + lane / 4 * 2, 2);
      }
      r[matrix] = pair[0] | u32(pair[1]) << 16;
    }
  }

  template <class In>
  static KGEN_DEVICE float element(u32 word, int half) {
    return to_float(bit_cast<In>(u16(word >> 16 * half)));
  }
  template <class In, int kRegisters>
  static KGEN_DEVICE void multiply(u32 (&c)[kRegisters], const u32 (&a)[4], u32 b0, u32 b1) {
    const int lane = lane_id();
    float sums[4] = {};
    for (int k = 0; k < 16; ++k) {
      const int holder = k % 8 / 2;
      float row[2], column[2];
      for (int i = 0; i < 2; ++i) {
        row[i] = element<In>(shuffle(a[i + k / 8 * 2], lane / 4 * 4 + holder), k % 2);
        column[i] = element<In>(shuffle(k < 8 ? b0 : b1, (lane % 4 * 2 + i) * 4 + holder), k % 2);
      }
      for (int i = 0; i < 4; ++i) sums[i] += row[i / 2] * column[i % 2];
    }
    for (int i = 0; i < 4; ++i) {
      if constexpr (kRegisters == 4) {
        c[i] = bit_cast<u32>(bit_cast<float>(c[i]) + sums[i]);
      } else {
        const u32 sum = f16_bits(element<f16>(c[i / 2], i % 2) + sums[i]);
        c[i / 2] = i % 2 ? (c[i / 2] & 0xffffu) | sum << 16 : (c[i / 2] & 0xffff0000u) | sum;
      }
    }
  }
};

}  // namespace testing

template <class In, class Acc, int kTileK>
struct Mma<Arch::sm_61, In, Acc, 16, kTileK> : MmaSync<testing::ModelInstructions, In, Acc> {};

template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global, int valid) {
  testing::copies().open.push_back({lds, global, kBytes, valid});
}
template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global) {
  async_copy<kBytes>(lds, global, kBytes);
}
// All parts pass as many of them, so one for all will do.
KGEN_DEVICE void sync_part(int, int) { sync_block(); }
KGEN_DEVICE void async_commit() {
  testing::copies().groups.push_back(std::move(testing::copies().open));
  testing::copies().open.clear();
}
template <int kPending>
KGEN_DEVICE void async_wait() {
  auto& groups = testing::copies().groups;
  for (; groups.size() > kPending; groups.pop_front()) {
    for (const testing::Copy& copy : groups.front()) {
      std::memset(lds_base() + copy.to, 0, copy.bytes);
      std::memcpy(lds_base() + copy.to, copy.from, copy.valid);
    }
  }
}

}  // namespace kgen
