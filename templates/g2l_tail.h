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
//   block tile: tile_m pixels x tile_n columns of v, which are tile_n/3 output channels; tiles start at multiples of 48
//   wave tile: sums through LDS, kM pixels at a time
//   lane: 3*out_vec columns of one pixel, stored as out_vec channels
//
// v, g and the mix stay in fp32; the one rounding is y's. Legal: c a multiple of 3, a wave's columns of 48, vec_a
// divides c and ldz, vec_b c and ldp.
#pragma once
#include "columns.h"
#include "epilogue.h"
#include "tile_product.h"

namespace kgen {

// The three values of each of kOut output channels, as they lie in memory; `valid` channels exist.
template <int kOut, class T>
KGEN_DEVICE void load_groups(const T* from, int valid, float (&values)[3][kOut]) {
  KGEN_UNROLL
  for (int part = 0; part < 3; ++part) load_columns<kOut>(from + part * kOut, 3 * valid - part * kOut, values[part]);
}

// out_vec channels of one pixel from their 3*out_vec columns of the product; `valid` of them exist.
template <class C, class P, int kColumns>
KGEN_DEVICE void g2l_finish(const P& p, i64 pixel, i64 branch, i64 column, int valid, const float (&sums)[kColumns]) {
  constexpr int kOut = kColumns / 3;
  const i64 cat = branch * p.c + column, out = cat / 3;
  float weight[3][kOut], bias[3][kOut] = {}, gate_a[3][kOut], gate_b[3][kOut];
  load_groups(p.wm + cat, valid, weight);
  load_groups(p.gate_a + cat, valid, gate_a);
  load_groups(p.gate_b + cat, valid, gate_b);
  if constexpr (C::bias != 0) load_groups(p.bp + column, valid, bias);
  float mix_bias[kOut], residual[kOut];
  load_columns<kOut>(p.bm + out, valid, mix_bias);
  load_columns<kOut>(p.x + pixel * p.ldx + out, valid, residual);
  float mixed[kOut] = {};
  KGEN_UNROLL
  for (int i = 0; i < kColumns; ++i) {
    const int part = i / kOut, at = i % kOut;
    const float v = silu(sums[i] + bias[part][at]);
    const float gated = v * sigmoid(silu(fma_f(gate_a[part][at], v, gate_b[part][at])));
    mixed[i / 3] = fma_f(weight[part][at], gated, mixed[i / 3]);
  }
  KGEN_UNROLL
  for (int o = 0; o < kOut; ++o) mixed[o] = residual[o] + silu(mixed[o] + mix_bias[o]);
  store_columns<kOut>(p.y + pixel * p.ldy + out, valid, mixed);
}

template <class C, class P>
KGEN_DEVICE void g2l_tail(const P& p) {
  using Source = MatrixSource<typename C::dtype, true>;
  using Product = TileProduct<C, Source, Source>;
  const i64 branch = block_z(), pixels = p.n * p.h * p.w;
  const int column_tiles = int((p.c + C::tile_n - 1) / C::tile_n);
  const i64 m0 = i64(block_x() / column_tiles) * C::tile_m, n0 = i64(block_x() % column_tiles) * C::tile_n;

  const Source pixels_of_branch(p.z + m0 * p.ldz + branch * p.c, p.ldz, pixels - m0, C::tile_m, C::tile_k, C::vec_a);
  const Source weight(p.wp + n0 * p.ldp, p.ldp, p.c - n0, C::tile_n, C::tile_k, C::vec_b);
  const auto wave = Product::multiply(pixels_of_branch, weight, int(p.c));
  Product::template each_row<3 * C::out_vec>(wave, [&](int row, int column, const float(&sums)[3 * C::out_vec]) {
    const i64 left = (p.c - n0 - column) / 3;  // c and tiles are multiples of 3, so groups are whole
    if (m0 + row < pixels && left > 0)
      g2l_finish<C>(p, m0 + row, branch, n0 + column, left < C::out_vec ? int(left) : C::out_vec, sums);
  });
}

}  // namespace kgen
