// The pixel-local tail of a G2L block (OPS.md b.2, steps 2 to 6) in one pass: pointwise product, gate, grouped mix,
// residual.
//
//   z [pixels, 3c]  branch d reads columns [d*c, (d+1)*c)
//     v = silu(z_d . Wp^T + bp)                    the product on tile.h's loop: A = pixels, B = rows of Wp
//     g = v * sigmoid(silu(a*v + b))               a, b of column d*c + j
//     y[co] = x[co] + silu(sum_i wm[co,i] g[3co+i] + bm[co])
//
//   Output channel co reads the concatenated channels 3co .. 3co+2. As c is a multiple of 3, these are of one branch:
//   branch d makes output channels [d*c/3, (d+1)*c/3) from its own c columns alone.
//
//   grid x: tiles of pixels x columns, columns fastest (neighbours share the pixels in the L2), z: branch
//   block tile tile_m pixels x tile_n columns of v = tile_n/3 output channels; a tile starts at a multiple of 48
//   columns wave: sums through LDS, kM pixels at a time; a lane takes 3*out_vec columns of one pixel and stores out_vec
//   channels
//
// v, g and the mix stay in fp32; the one rounding is y's. Legal: c a multiple of 3, tile_n of 48 a wave, vec_a divides
// c and ldz, vec_b c and ldp.
#pragma once
#include "epilogue.h"
#include "mma/mma.h"
#include "tile.h"

namespace kgen {

template <class C>
struct G2lTile {
  using T = typename C::dtype;
  using Unit = Mma<C::arch, T, float, C::mma_m, C::tile_k>;
  using Shape =
      TileShape<Unit, C::tile_m, C::tile_n, C::tile_k, C::waves_m, C::waves_n, C::stages, Unit::kBInN, false, false>;
  using Source = MatrixSource<T, true>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kPitch = Shape::kWaveN + 4;  // the padding spreads rows over the banks
  static constexpr int kSlabBytes = Unit::kM * kPitch * int(sizeof(float));
  static constexpr int kColumns = 3 * C::out_vec;  // of v, for one lane
  static_assert(Shape::kWaveN % 48 == 0 && Shape::kWaveN % kColumns == 0, "waves take whole groups of three columns");
};

// out_vec channels of one pixel from their 3*out_vec columns of the product; `left` of them exist.
template <class C, class P, int kColumns>
KGEN_DEVICE void g2l_finish(const P& p, i64 pixel, i64 branch, i64 column, int left, const float (&sums)[kColumns]) {
  constexpr int kOut = kColumns / 3;
  const i64 cat = branch * p.c + column, out = cat / 3;
  float mixed[kOut], weight[kColumns], bias[kOut];
  const int valid = left < kOut ? left : kOut;
  float v[kColumns];
  KGEN_UNROLL
  for (int i = 0; i < kColumns; ++i) v[i] = sums[i];
  if constexpr (C::bias != 0) {
    KGEN_UNROLL
    for (int i = 0; i < kColumns; ++i) v[i] += i < 3 * valid ? to_float(p.bp[column + i]) : 0.0f;
  }
  KGEN_UNROLL
  for (int i = 0; i < kColumns; ++i) {
    const bool exists = i < 3 * valid;
    weight[i] = exists ? to_float(p.wm[cat + i]) : 0.0f;
    v[i] = silu(v[i]);
    const float gate = exists ? fma_f(p.gate_a[cat + i], v[i], p.gate_b[cat + i]) : 0.0f;
    v[i] *= sigmoid(silu(gate));
  }
  epilogue_detail::load_columns<kOut>(p.bm + out, valid, bias);
  KGEN_UNROLL
  for (int o = 0; o < kOut; ++o) {
    const float sum =
        fma_f(weight[3 * o], v[3 * o], fma_f(weight[3 * o + 1], v[3 * o + 1], weight[3 * o + 2] * v[3 * o + 2]));
    mixed[o] = silu(sum + bias[o]);
  }
  float residual[kOut];
  epilogue_detail::load_columns<kOut>(p.x + pixel * p.ldx + out, valid, residual);
  KGEN_UNROLL
  for (int o = 0; o < kOut; ++o) mixed[o] += residual[o];
  epilogue_detail::store_columns<kOut>(p.y + pixel * p.ldy + out, valid, mixed);
}

template <class C, class P>
KGEN_DEVICE void g2l_tail(const P& p) {
  using G = G2lTile<C>;
  using S = typename G::Shape;
  using Unit = typename G::Unit;
  using Source = typename G::Source;
  const int thread = thread_x(), wave_index = uniform(thread / Unit::kLanes), lane = thread % Unit::kLanes;
  const i64 branch = block_z(), pixels = p.n * p.h * p.w;
  const int column_tiles = int((p.c + C::tile_n - 1) / C::tile_n);
  const i64 m0 = i64(block_x() / column_tiles) * C::tile_m, n0 = i64(block_x() % column_tiles) * C::tile_n;

  const Source source_a(p.z + m0 * p.ldz + branch * p.c, p.ldz, pixels - m0, C::tile_m, C::tile_k, C::vec_a);
  const Source source_b(p.wp + n0 * p.ldp, p.ldp, p.c - n0, C::tile_n, C::tile_k, C::vec_b);
  WaveTile<S> wave(wave_index, lane, source_a, source_b);
  const int k = int(p.c);
  if constexpr (C::async_pipeline) {
    AsyncTileLoader<Source, typename S::LayoutA, C::tile_m, C::tile_k, C::vec_a, G::kThreads, false> load_a(source_a,
                                                                                                            thread);
    AsyncTileLoader<Source, typename S::LayoutB, C::tile_n, C::tile_k, C::vec_b, G::kThreads, false> load_b(source_b,
                                                                                                            thread);
    tile_loop_async<S>(wave, load_a, load_b, k);
  } else {
    using Lds = typename S::Lds;
    TileLoader<Source, Lds, typename S::LayoutA, C::tile_m, C::tile_k, C::vec_a, G::kThreads, false> load_a(source_a,
                                                                                                            thread);
    TileLoader<Source, Lds, typename S::LayoutB, C::tile_n, C::tile_k, C::vec_b, G::kThreads, Unit::kBInN> load_b(
        source_b, thread);
    if constexpr (C::arch == Arch::host)
      tile_loop_plain<S>(wave, load_a, load_b, k);
    else
      tile_loop_direct<S>(wave, load_a, load_b, k);
  }

  if constexpr (G::kThreads > Unit::kLanes || Unit::kLanes > 1) sync_block();  // the stages become the waves' slabs
  float* sums = lds<float>(wave_index * G::kSlabBytes);
  const int wave_row = wave_index / C::waves_n * S::kWaveM, wave_column = wave_index % C::waves_n * S::kWaveN;
  constexpr int kColumns = G::kColumns, kPerRow = S::kWaveN / kColumns, kItems = Unit::kM * kPerRow;
  KGEN_UNROLL
  for (int i = 0; i < S::kRm; ++i) {
    KGEN_UNROLL
    for (int j = 0; j < S::kRn; ++j) Unit::store(wave.acc[i][j], sums + j * Unit::kN, G::kPitch, lane);
    if constexpr (Unit::kLanes > 1) sync_wave();
    KGEN_NO_UNROLL
    for (int item = 0; item < kItems; item += Unit::kLanes) {
      const int at = item + lane;
      if (kItems % Unit::kLanes != 0 && at >= kItems) break;
      const int row = at / kPerRow, column = at % kPerRow * kColumns;
      float values[kColumns];
      KGEN_UNROLL
      for (int c = 0; c < kColumns; ++c) values[c] = sums[row * G::kPitch + column + c];
      const i64 pixel = m0 + wave_row + i * Unit::kM + row, first = n0 + wave_column + column;
      if (pixel >= pixels || first >= p.c) continue;
      const i64 left = (p.c - first) / 3;
      g2l_finish<C>(p, pixel, branch, first, left < C::out_vec ? int(left) : C::out_vec, values);
    }
    if constexpr (Unit::kLanes > 1) sync_wave();
  }
}

}  // namespace kgen
