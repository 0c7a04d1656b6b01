// Rotary embedding: pairs (a, b) of a head become (a cos - b sin, b cos + a sin) by the angle of the token's position.
//
//   one head (d elements):   neox  │ a0 a1 … │ b0 b1 … │ rest │      gptj  │ a0 b0 a1 b1 …    │ rest │
//                                  rotary_dim/2 each     copied              rotary_dim
//   A unit is vec pairs (two vectors, or with C::joined one that has both of each gptj pair), or vec elements of the
//   rest. A work-item takes one unit of heads_item heads of a token: the cosines and sines are read once for them, and
//   all loads of x are in flight. Consecutive work-items take consecutive units.
//
// y may be x: a work-item reads all it will write, before it writes. Legal: vec divides rotary_dim/2, d and the
// strides; heads*d < 2^30.
#pragma once
#include "columns.h"
#include "matrix_tile.h"
#include "rope_types.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void rope(const P& p) {
  using T = typename C::dtype;
  using V = Packed<T, C::vec>;
  using Table = Packed<typename C::table_dtype, C::vec>;
  constexpr bool kNeox = C::style == style::neox;
  const int half = int(p.rotary_dim) / 2, pair_units = half / C::vec;
  const u32 units = u32(pair_units + int(p.d - p.rotary_dim) / C::vec);
  const u32 groups = u32((p.heads + C::heads_item - 1) / C::heads_item), token_units = groups * units;

  const i64 first = i64(block_x()) * C::threads, first_token = quotient(first, token_units);
  u32 at = u32(first - first_token * token_units) + u32(thread_x());
  const u32 tokens_on = at / token_units;  // a block may begin in one token and end in another
  const i64 token = first_token + tokens_on;
  if (token >= p.s) return;
  at -= tokens_on * token_units;
  const u32 group = at / units;
  const int unit = int(at - group * units), head = int(group) * C::heads_item;
  const T* x = p.x + token * p.ldx + head * p.head_stride_x;
  T* y = p.y + token * p.ldy + head * p.head_stride_y;
  const int heads = int(p.heads) - head;  // of them, this work-item takes the first heads_item

  if (unit >= pair_units) {
    const int column = 2 * half + (unit - pair_units) * C::vec;
    V rest[C::heads_item];
    KGEN_UNROLL
    for (int h = 0; h < C::heads_item; ++h) rest[h] = V::load(x + (h < heads ? h : 0) * p.head_stride_x + column);
    KGEN_UNROLL
    for (int h = 0; h < C::heads_item; ++h)
      if (h < heads) rest[h].store(y + h * p.head_stride_y + column);
    return;
  }

  const int pair = unit * C::vec;
  const int low = kNeox ? pair : 2 * pair, high = kNeox ? half + pair : 2 * pair + C::vec;  // the two vectors
  const i64 position = i64(p.positions[token]);
  constexpr int kParts = C::joined ? 1 : 2, kWidth = 2 * C::vec / kParts;
  using Part = Packed<T, kWidth>;
  Part parts[C::heads_item][kParts];
  KGEN_UNROLL
  for (int h = 0; h < C::heads_item; ++h) {
    const T* from = x + (h < heads ? h : 0) * p.head_stride_x;
    KGEN_UNROLL
    for (int k = 0; k < kParts; ++k) parts[h][k] = Part::load(from + (k == 0 ? low : high));
  }
  const Table cosine = Table::load(p.cos + position * half + pair), sine = Table::load(p.sin + position * half + pair);
  KGEN_UNROLL
  for (int h = 0; h < C::heads_item; ++h) {
    if (h >= heads) continue;
    float in[2 * C::vec], out[2 * C::vec];
    KGEN_UNROLL
    for (int e = 0; e < 2 * C::vec; ++e) in[e] = parts[h][e / kWidth][e % kWidth];
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) {
      const int i = kNeox ? e : 2 * e, j = kNeox ? C::vec + e : 2 * e + 1;
      const float a = in[i], b = in[j], c = cosine[e], s = sine[e];
      out[i] = fma_f(a, c, -(b * s));
      out[j] = fma_f(b, c, a * s);
    }
    Part result[kParts];
    KGEN_UNROLL
    for (int e = 0; e < 2 * C::vec; ++e) result[e / kWidth].set(e % kWidth, out[e]);
    KGEN_UNROLL
    for (int k = 0; k < kParts; ++k) result[k].store(y + h * p.head_stride_y + (k == 0 ? low : high));
  }
}

}  // namespace kgen
