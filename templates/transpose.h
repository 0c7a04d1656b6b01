// y[b, j, i] = x[b, i, j]: a tile of x goes through registers and LDS so that both sides move whole vectors.
//
//   x tile  tile_rows x tile_cols in squares of vec x vec      lane: loads the vec rows of a square, turns it in
//   registers, ┌──┬──┬──┐                                                 writes its vec columns to LDS, 16 bytes each
//   at most │sq│sq│…  neighbours along a row of x └──┴──┘                                                    then takes
//   vectors of rows of y from LDS
//
// LDS holds tile_cols rows of y of kChunks = tile_rows/vec vectors each. Lanes that write together hold the same vector
// of different rows, vec rows apart, and would all meet one bank; so vector j of row c lies at j ^ (c/vec): then
// neither the writes nor the reads (one row, consecutive vectors) meet.
#pragma once
#include "matrix_tile.h"
#include "prelude.h"

namespace kgen {

// Where LDS holds vector `chunk` of row `row` of y.
template <int kVec, int kChunks>
KGEN_DEVICE int transpose_place(int row, int chunk) {
  return row * kChunks + (chunk ^ ((row / kVec) & (kChunks - 1)));
}

template <class C, class P>
KGEN_DEVICE void transpose(const P& p) {
  using T = typename C::dtype;
  constexpr int kVec = C::vec, kChunks = C::tile_rows / kVec, kAcross = C::tile_cols / kVec;
  static_assert((kChunks & (kChunks - 1)) == 0, "a tile has a power of two of vectors");
  using Chunk = Vec<T, kVec>;
  Chunk* tile = lds<Chunk>(0);

  const i64 across = (p.cols + C::tile_cols - 1) / C::tile_cols, down = (p.rows + C::tile_rows - 1) / C::tile_rows;
  const i64 line = quotient(block_x(), across), batch = quotient(line, down);
  const i64 row0 = (line - batch * down) * C::tile_rows, column0 = (block_x() - line * across) * C::tile_cols;
  const T* x = p.x + batch * p.batch_stride_x + row0 * p.ldx + column0;
  T* y = p.y + batch * p.batch_stride_y + column0 * p.ldy + row0;
  const int rows = valid_of(row0, p.rows, C::tile_rows), cols = valid_of(column0, p.cols, C::tile_cols);

  KGEN_UNROLL
  for (int square = thread_x(); square < kChunks * kAcross; square += C::threads) {
    const int i = square / kAcross * kVec, j = square % kAcross * kVec;
    Chunk in[kVec], out[kVec];
    KGEN_UNROLL
    for (int k = 0; k < kVec; ++k)
      in[k] = i + k < rows ? load_valid<kVec>(x + (i + k) * p.ldx + j, valid_of(j, cols, kVec)) : Chunk{};
    KGEN_UNROLL
    for (int k = 0; k < kVec; ++k) {
      KGEN_UNROLL
      for (int e = 0; e < kVec; ++e) out[e][k] = in[k][e];
    }
    KGEN_UNROLL
    for (int e = 0; e < kVec; ++e) tile[transpose_place<kVec, kChunks>(j + e, i / kVec)] = out[e];
  }
  sync_lds();
  KGEN_UNROLL
  for (int piece = thread_x(); piece < C::tile_cols * kChunks; piece += C::threads) {
    const int row = piece / kChunks, chunk = piece % kChunks;
    if (row < cols)
      store_valid<kVec>(y + row * p.ldy + chunk * kVec, valid_of(chunk * kVec, rows, kVec),
                        tile[transpose_place<kVec, kChunks>(row, chunk)]);
  }
}

}  // namespace kgen
