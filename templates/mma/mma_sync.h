// NVIDIA tensor cores through mma.sync: 16x16x16 as two m16n8k16 (sm_80 on) or four m16n8k8 (sm_75, fp16 alone),
// fragments by ldmatrix, which hands each lane two consecutive elements of a row:
//
//   A 16x16, registers 0..3 = quadrants (rows 0-7, k 0-7) (rows 8-15, k 0-7) (rows 0-7, k 8-15) (rows 8-15, k 8-15)
//   B 16x16, registers 0..3 = (k 0-7, n 0-7) (k 8-15, n 0-7) (k 0-7, n 8-15) (k 8-15, n 8-15); lane: n = lane/4, k =
//   2*(lane%4) C 16x16, half h = columns 8h..8h+7: rows lane/4 and lane/4 + 8, columns 2*(lane%4) and the next
#pragma once
#include "mma.h"

namespace kgen {

// The instructions themselves, apart from the layout above so that tests can put a model in their place. `offset`
// counts bytes of the block's LDS; lane l gives the address of row l % 8 of quadrant l / 8.
template <Arch kArch>
struct MmaSyncInstructions {
  static KGEN_DEVICE void load(u32 (&r)[4], int offset) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(lds_address(lds_base()) + u32(offset))
                 : "memory");
  }
  static KGEN_DEVICE void load_transposed(u32 (&r)[4], int offset) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(lds_address(lds_base()) + u32(offset))
                 : "memory");
  }

#define KGEN_MMA_F32(shape, type, a_registers, b_registers, ...)                                                     \
  asm("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, " a_registers ", " b_registers \
      ", {%0, %1, %2, %3};"                                                                                          \
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                                               \
      : __VA_ARGS__)
#define KGEN_MMA_F16(shape, a_registers, b_registers, ...)                                                       \
  asm("mma.sync.aligned." shape ".row.col.f16.f16.f16.f16 {%0, %1}, " a_registers ", " b_registers ", {%0, %1};" \
      : "+r"(c[0]), "+r"(c[1])                                                                                   \
      : __VA_ARGS__)

  // c[16][8] += a[16][16] . b[16][8]; c in two registers holds f16, in four float.
  template <class In, int kRegisters>
  static KGEN_DEVICE void multiply(u32 (&c)[kRegisters], const u32 (&a)[4], u32 b0, u32 b1) {
    constexpr bool kHalfSums = kRegisters == 2;
    if constexpr (kIsSm75<kArch>) {
      if constexpr (kHalfSums) {
        KGEN_MMA_F16("m16n8k8", "{%2, %3}", "{%4}", "r"(a[0]), "r"(a[1]), "r"(b0));
        KGEN_MMA_F16("m16n8k8", "{%2, %3}", "{%4}", "r"(a[2]), "r"(a[3]), "r"(b1));
      } else {
        KGEN_MMA_F32("m16n8k8", "f16", "{%4, %5}", "{%6}", "r"(a[0]), "r"(a[1]), "r"(b0));
        KGEN_MMA_F32("m16n8k8", "f16", "{%4, %5}", "{%6}", "r"(a[2]), "r"(a[3]), "r"(b1));
      }
    } else if constexpr (kHalfSums) {
      KGEN_MMA_F16("m16n8k16", "{%2, %3, %4, %5}", "{%6, %7}", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0),
                   "r"(b1));
    } else if constexpr (kSame<In, f16>) {
      KGEN_MMA_F32("m16n8k16", "f16", "{%4, %5, %6, %7}", "{%8, %9}", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]),
                   "r"(b0), "r"(b1));
    } else {
      static_assert(kSame<In, bf16>, "mma.sync takes fp16 and bf16");
      KGEN_MMA_F32("m16n8k16", "bf16", "{%4, %5, %6, %7}", "{%8, %9}", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]),
                   "r"(b0), "r"(b1));
    }
  }
#undef KGEN_MMA_F32
#undef KGEN_MMA_F16
};

template <class Instructions, class In, class Acc>
struct MmaSync {
  static constexpr int kM = 16, kN = 16, kK = 16, kLanes = 32;
  static constexpr bool kSwizzle = true, kReadsN = true, kBInN = false, kPrefetch = true;
  static constexpr int kChunksA = 1, kChunksB = 1;
  using Lds = In;
  struct A {
    u32 r[4];
  };
  using B = A;
  static constexpr bool kHalfSums = kSame<Acc, f16>;  // two columns a register
  struct C {
    u32 r[2][kHalfSums ? 2 : 4];
  };

  static KGEN_DEVICE int a_row(int lane, int) { return lane % 16; }
  static KGEN_DEVICE int a_k(int lane, int) { return lane / 16 * 8; }
  template <bool kNMajor>
  static KGEN_DEVICE int b_column(int lane, int) {
    return kNMajor ? lane / 16 * 8 : lane / 16 * 8 + lane % 8;
  }
  template <bool kNMajor>
  static KGEN_DEVICE int b_k(int lane, int) {
    return kNMajor ? lane % 16 : lane / 8 % 2 * 8;
  }

  static KGEN_DEVICE void load_a(A& a, int, int offset) { Instructions::load(a.r, offset); }
  template <bool kNMajor, int>
  static KGEN_DEVICE void load_b(B& b, int, int offset) {
    if constexpr (kNMajor)
      Instructions::load_transposed(b.r, offset);
    else
      Instructions::load(b.r, offset);
  }

  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    Instructions::template multiply<In>(c.r[0], a.r, b.r[0], b.r[1]);
    Instructions::template multiply<In>(c.r[1], a.r, b.r[2], b.r[3]);
  }

  static constexpr int kRowsC = 2, kRowElementsC = 4, kRunC = 2, kRowLanes = 3;
  static constexpr bool kSumsToA = !kHalfSums;
  static KGEN_DEVICE int c_row(int lane, int r) { return lane / 4 + 8 * r; }
  static KGEN_DEVICE int c_column(int lane, int e) { return e / 2 * 8 + lane % 4 * 2 + e % 2; }
  static KGEN_DEVICE float get_c(const C& c, int r, int e) { return bit_cast<float>(c.r[e / 2][2 * r + e % 2]); }
  static KGEN_DEVICE void set_c(C& c, int r, int e, float value) { c.r[e / 2][2 * r + e % 2] = bit_cast<u32>(value); }
  // A lane holds the same places of a 16x16 block of sums and of a fragment A.
  static KGEN_DEVICE A to_a(const C& c) {
    A a;
    KGEN_UNROLL
    for (int i = 0; i < 4; ++i) a.r[i] = rounded_pair<In>(get_c(c, i % 2, i / 2 * 2), get_c(c, i % 2, i / 2 * 2 + 1));
    return a;
  }

  static KGEN_DEVICE void store(const C& c, float* rows, int pitch, int lane) {
    float* at = rows + lane / 4 * pitch + lane % 4 * 2;
    KGEN_UNROLL
    for (int h = 0; h < 2; ++h) {
      KGEN_UNROLL
      for (int i = 0; i < 2; ++i) {
        Vec<float, 2> pair;
        if constexpr (kHalfSums) {
          pair[0] = to_float(f16{u16(c.r[h][i])});
          pair[1] = to_float(f16{u16(c.r[h][i] >> 16)});
        } else {
          pair[0] = bit_cast<float>(c.r[h][2 * i]);
          pair[1] = bit_cast<float>(c.r[h][2 * i + 1]);
        }
        store_vec<float, 2>(at + i * 8 * pitch + h * 8, pair);
      }
    }
  }
};

template <Arch kArch, class In, class Acc, int kTileK>
  requires(kIsSm80<kArch> || (kIsSm75<kArch> && kSame<In, f16>))
struct Mma<kArch, In, Acc, 16, kTileK> : MmaSync<MmaSyncInstructions<kArch>, In, Acc> {};

}  // namespace kgen
