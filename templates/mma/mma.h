// What a matrix unit (or the plain ALU) offers the tile loop of tile.h. One specialisation of Mma a file; there is no
// fallback: an architecture without one does not compile.
//
//   Mma<arch, In, Acc, kM, kTileK>: D[kM x kN] += A[kM x kK] . B[kK x kN], done by kLanes lanes together.
//
//   Lds         element of the tiles in LDS (In, or float where the ALU wants that)
//   kSwizzle    LDS rows are permuted in 16-byte chunks, see Layout in tile.h
//   kReadsN     B may lie [k][n] in LDS, as in memory with the "kn" layout; else it is transposed on its way there
//   kBInN       B is always [k][n] in LDS
//   kPrefetch   fragments of the next K step are loaded before the products of this one
//   A, B, C     fragments: what one lane holds
//   kChunksA, kChunksB            16-byte pieces that a lane reads for a fragment
//   a_row, a_k(lane, e)           where piece e starts in the fragment's [kM][kK] part of the tile
//   b_column, b_k<kNMajor>(lane, e)
//   load_a(a, e, offset)          reads piece e at a byte offset of the block's LDS
//   load_b<kNMajor, kRowBytes>(b, e, offset)
//   multiply(c, a, b)
//   kInstructions                 AMD: matrix instructions of a multiply()
//   store(c, rows, pitch, lane)   writes this lane's part of D as float [kM][pitch] into LDS
//
// Where the sums lie, for kernels that work on them in registers (attention); fp32 sums alone:
//   kRowsC, kRowElementsC         rows of D that a lane has a part of, and elements of each
//   kRunC                         elements e .. e+kRunC-1 (e a multiple) are consecutive columns
//   kRowLanes                     lanes that share a row differ in these bits of their number, and in no others
//   c_row(lane, r), c_column(lane, e)
//   get_c(c, r, e), set_c(c, r, e, value)
//   kSumsToA, to_a(c)             mma_sync: the sums, rounded to In, are the fragment A of a product over their columns
//
// The order of K within a fragment is free as long as A and B agree, which most units below make use of to read 16
// consecutive bytes a lane.
#pragma once
#include "../prelude.h"

namespace kgen {

template <Arch kArch, class In, class Acc, int kM, int kTileK>
struct Mma;

// Architectures by matrix unit.
template <Arch a>
inline constexpr bool kIsCdna = a == Arch::gfx908 || a == Arch::gfx90a || a == Arch::gfx942;
template <Arch a>
inline constexpr bool kIsRdna3 = a == Arch::gfx1100 || a == Arch::gfx1151;
template <Arch a>
inline constexpr bool kIsRdna4 = a == Arch::gfx1200 || a == Arch::gfx1201;
template <Arch a>
inline constexpr bool kIsSm75 = a == Arch::sm_75;
template <Arch a>
inline constexpr bool kIsSm80 = a == Arch::sm_80 || a == Arch::sm_86 || a == Arch::sm_89 || a == Arch::sm_90;

}  // namespace kgen
