// gptq_gemm by tiles: Y = X . W + bias with the gemm family's tile loop; the loader of the second operand unpacks.
//
//   qweight ── words into registers, a tile ahead ──▶ scale * (q - zero), rounded once ──▶ LDS [n][k] ──▶ tile.h, Mma
//
//   a work-item's piece: kVec columns x kK terms        LDS: 16 bytes of a row of one column at a time
//   ┌───┬───┬─…                                          n0  ████████ k..k+7
//   │ w │ w │     a word holds 8 terms (4 bits)          n1  ████████
//   └───┴───┴─…
//
// gptq_tile unpacks as it goes (the packed weight is read once for each row of tiles). gptq_expand writes the weight
// out for gptq_expanded_tile, which is a plain gemm. Both round a weight to the type of X once.
//
// Legal: tile_k holds whole pieces; vec_b divides the row strides of qweight and scales; a piece lies in one group
// unless per_row, where scale and zero are looked up for each term.
#pragma once
#include "gemm.h"
#include "gptq_format.h"

namespace kgen {
namespace gptq {

// Where scales and zeros come from, by the names that Group reads.
template <class C>
struct GroupTable {
  const typename C::dtype* scales;
  const i32* qzeros;
  const i32* g_idx;
  i64 ldg, ldz;

  template <class P>
  KGEN_DEVICE explicit GroupTable(const P& p)
      : scales(p.scales), qzeros(p.qzeros), g_idx(p.g_idx), ldg(p.ldg), ldz(p.ldz) {}
};

// The terms of one column that are unpacked together: at least 8, so that they are 16 bytes.
template <class C>
struct Piece {
  using T = typename C::dtype;
  using F = Packing<C>;
  static constexpr int kK = F::kUnitK < 8 ? 8 : F::kUnitK;
  static constexpr int kUnits = kK / F::kUnitK, kWords = kUnits * F::kWords;

  static KGEN_DEVICE void unit_words(const u32 (&words)[kWords], int unit, u32 (&of_unit)[F::kWords]) {
    KGEN_UNROLL
    for (int i = 0; i < F::kWords; ++i) of_unit[i] = words[unit * F::kWords + i];
  }

  // scale * (q - zero) of the first `valid` terms, which are whole units; the others are 0.
  static KGEN_DEVICE void floats(const u32 (&words)[kWords], u32 zero, float scale, int valid, float (&out)[kK]) {
    const u32 operand = zero_operand<C>(zero);
    KGEN_UNROLL
    for (int unit = 0; unit < kUnits; ++unit) {
      u32 of_unit[F::kWords];
      unit_words(words, unit, of_unit);
      const float factor = unit * F::kUnitK < valid ? scale : 0.0f;
      float* to = out + unit * F::kUnitK;
      KGEN_UNROLL
      for (int i = 0; i < F::kPairs; ++i) {
        float low, high;
        differences<C>(F::pair(of_unit, i), operand, low, high);
        to[F::low(i)] = low * factor;
        to[F::high(i)] = high * factor;
      }
    }
  }
  // The same for terms from `k` on, each with its own group.
  static KGEN_DEVICE void floats_by_row(const GroupTable<C>& table, const u32 (&words)[kWords], int k, int valid,
                                        i64 column, float (&out)[kK]) {
    KGEN_UNROLL
    for (int unit = 0; unit < kUnits; ++unit) {
      u32 of_unit[F::kWords];
      unit_words(words, unit, of_unit);
      KGEN_UNROLL
      for (int i = 0; i < F::kPairs; ++i) {
        const u32 pair = F::pair(of_unit, i);
        KGEN_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int at = unit * F::kUnitK + (half ? F::high(i) : F::low(i));
          out[at] = 0.0f;
          if (at >= valid) continue;
          Group<C, 1> group;
          group.load(table, group_of_row<C>(table, k + at), column);
          const int q = int(half ? pair >> 16 : pair & 0xffffu);
          out[at] = float(q - int(group.zeros.zero(column, 0))) * group.scales[0];
        }
      }
    }
  }

  static KGEN_DEVICE void round(const float (&values)[kK], u32 (&out)[kK / 2]) {
    KGEN_UNROLL
    for (int i = 0; i < kK / 2; ++i)
      out[i] = u32(from_float<T>(values[2 * i]).bits) | u32(from_float<T>(values[2 * i + 1]).bits) << 16;
  }

  // As T, two a word.
  static KGEN_DEVICE void rounded(const u32 (&words)[kWords], u32 zero, const Packed<T, 1>& scale, int valid,
                                  u32 (&out)[kK / 2]) {
    if constexpr (kSame<T, f16> && F::kHalves) {
      const u32 operand = zero_operand<C>(zero);
      KGEN_UNROLL
      for (int unit = 0; unit < kUnits; ++unit) {
        const u32 scales = unit * F::kUnitK < valid ? scale.words[0] * 0x10001u : 0u;
        u32 of_unit[F::kWords], pairs[F::kPairs];
        unit_words(words, unit, of_unit);
        KGEN_UNROLL
        for (int i = 0; i < F::kPairs; ++i)
          pairs[i] = mul_f16x2(add_f16x2(F::pair(of_unit, i) | 0x64006400u, operand), scales);
        KGEN_UNROLL
        for (int i = 0; i < F::kPairs; ++i) out[unit * F::kPairs + i] = in_order(pairs, i);
      }
    } else {
      float values[kK];
      floats(words, zero, scale[0], valid, values);
      round(values, out);
    }
  }
  // Values 2i and 2i+1 of a unit.
  static KGEN_DEVICE u32 in_order(const u32 (&pairs)[F::kPairs], int i) {
    if constexpr (F::kInOrder) return pairs[i];
    const u32 a = pairs[2 * i % F::kPairs], b = pairs[(2 * i + 1) % F::kPairs];
    return 2 * i < F::kPairs ? (a & 0xffffu) | b << 16 : a >> 16 | (b & 0xffff0000u);
  }
};

// The packed weight as the tile loop's second operand. Positions are relative to the tile.
template <class C>
struct WeightSource {
  using T = typename C::dtype;
  static constexpr bool kKMajor = true, kGaps = false;
  GroupTable<C> table;
  const i32* words;  // of the tile's first term and column
  i64 step;          // to the next tile along K
  i64 column;        // the tile's first
  int ldw;
  int last;    // greatest start of a vector of columns
  int groups;  // that exist
  int k, end;  // the tile's first term, and where this block's terms end

  template <class P>
  KGEN_DEVICE WeightSource(const P& p, i64 first_k, int terms, i64 n0)
      : table(p),
        words(p.qweight + first_k * C::bits / 32 * p.ldw + n0),
        step(p.ldw * (C::tile_k * C::bits / 32)),
        column(n0),
        ldw(int(p.ldw)),
        last(int(p.n - n0 < C::tile_n ? p.n - n0 : C::tile_n) - C::vec_b),
        groups(int(p.groups)),
        k(int(first_k)),
        end(int(first_k) + terms) {}
  KGEN_DEVICE void advance() {
    words += step;
    k += C::tile_k;
  }
};

}  // namespace gptq

// Tiles of kOuter columns x kInner terms from the packed weight to LDS.
template <class C, class Lds, class LdsLayout, int kOuter, int kInner, int kVec, int kThreads, bool kTransposed>
struct TileLoader<gptq::WeightSource<C>, Lds, LdsLayout, kOuter, kInner, kVec, kThreads, kTransposed> {
  using Source = gptq::WeightSource<C>;
  using Piece = gptq::Piece<C>;
  static constexpr int kK = Piece::kK;
  static constexpr int kPerLine = kOuter / kVec, kPieces = kPerLine * (kInner / kK);
  static constexpr int kCount = (kPieces + kThreads - 1) / kThreads;
  static constexpr bool kRagged = kPieces % kThreads != 0;
  static_assert(kInner % kK == 0 && kOuter % kVec == 0, "a tile is whole pieces");
  // All pieces of a work-item are of the same columns and group.
  static constexpr bool kSameColumns = kThreads % kPerLine == 0;
  static constexpr bool kOneGroup = kSameColumns && (C::group_size < 0 || C::group_size % kInner == 0);

  Source source;
  int thread;

  KGEN_DEVICE TileLoader(const Source& from, int thread_index) : source(from), thread(thread_index) {}

  KGEN_DEVICE bool exists(int i) const { return !kRagged || thread + i * kThreads < kPieces; }
  KGEN_DEVICE int column(int i) const { return (kSameColumns ? thread : thread + i * kThreads) % kPerLine * kVec; }
  KGEN_DEVICE int term(int i) const {
    return kSameColumns ? thread / kPerLine * kK + i * (kThreads / kPerLine * kK)
                        : (thread + i * kThreads) / kPerLine * kK;
  }
  // The same columns where they exist.
  KGEN_DEVICE int valid_column(int i) const { return min_int(column(i), source.last); }

  struct Words {
    u32 of[Piece::kWords][kVec];
  };
  using Group = gptq::Group<C, kVec>;
  static constexpr int kGroups = kOneGroup ? 1 : kCount;
  struct Registers {
    Words words[kCount];
    Group group[kGroups];
    int index = -1;  // of group[0] (kOneGroup)
    int k;           // the tile's first term
  };

  // Where word w of piece i is read. Units beyond the `left` terms are those of the tile's first term, which always
  // exists, and count as zero later.
  KGEN_DEVICE const i32* words_at(int i, int w, int left) const {
    const int unit = term(i) / Piece::F::kUnitK + w / Piece::F::kWords;
    const int row = (unit * Piece::F::kUnitK < left ? unit : 0) * Piece::F::kWords + w % Piece::F::kWords;
    return source.words + row * source.ldw + valid_column(i);
  }
  KGEN_DEVICE void load_words(int i, int left, Words& words) const {
    KGEN_UNROLL
    for (int w = 0; w < Piece::kWords; ++w) {
      const auto v = load_vec<i32, kVec>(words_at(i, w, left));
      KGEN_UNROLL
      for (int c = 0; c < kVec; ++c) words.of[w][c] = u32(v[c]);
    }
  }
  KGEN_DEVICE int group_index(int k) const { return min_int(gptq::group_in_order<C>(k), source.groups - 1); }

  // Unpacks piece i of the tile that begins with term `k`, of which `left` terms exist.
  KGEN_DEVICE void store_piece(int i, const Words& words, const Group& group, int k, int left, int stage) const {
    const i64 from_column = source.column + valid_column(i);
    const int valid = left - term(i);
    KGEN_UNROLL
    for (int c = 0; c < kVec; ++c) {
      u32 of_column[Piece::kWords];
      KGEN_UNROLL
      for (int w = 0; w < Piece::kWords; ++w) of_column[w] = words.of[w][c];
      if constexpr (kSame<Lds, float>) {
        float values[kK];
        if constexpr (C::per_row)
          Piece::floats_by_row(source.table, of_column, k + term(i), valid, from_column + c, values);
        else
          Piece::floats(of_column, group.zeros.zero(from_column, c), group.scales[c], valid, values);
        store_floats(i, c, values, stage);
      } else {
        u32 pairs[kK / 2];
        if constexpr (C::per_row) {
          float values[kK];
          Piece::floats_by_row(source.table, of_column, k + term(i), valid, from_column + c, values);
          Piece::round(values, pairs);
        } else {
          Packed<typename C::dtype, 1> scale;
          scale.words[0] = group.scales.bits(c);
          Piece::rounded(of_column, group.zeros.zero(from_column, c), scale, valid, pairs);
        }
        KGEN_UNROLL
        for (int e = 0; e < kK / 2; e += 4) {
          Vec<u32, 4> chunk;
          KGEN_UNROLL
          for (int j = 0; j < 4; ++j) chunk[j] = pairs[e + j];
          store_vec<u32, 4>(lds<u32>(stage + LdsLayout::offset(column(i) + c, term(i) + 2 * e)), chunk);
        }
      }
    }
  }
  KGEN_DEVICE void store_floats(int i, int c, const float (&values)[kK], int stage) const {
    KGEN_UNROLL
    for (int e = 0; e < kK; e += kTransposed ? 1 : 4) {
      if constexpr (kTransposed) {
        *lds<float>(stage + LdsLayout::offset(term(i) + e, column(i) + c)) = values[e];
      } else {
        Vec<float, 4> chunk;
        KGEN_UNROLL
        for (int j = 0; j < 4; ++j) chunk[j] = values[e + j];
        store_vec<float, 4>(lds<float>(stage + LdsLayout::offset(column(i) + c, term(i) + e)), chunk);
      }
    }
  }

  // One code for whole and partial tiles: unpacking is long, and the mask is cheap.
  template <bool kMasked>
  KGEN_DEVICE void load(Registers& r, int /*k_left*/) const {
    load(r);
  }
  KGEN_DEVICE void load(Registers& r) const {
    r.k = source.k;
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (exists(i)) load_words(i, source.end - r.k, r.words[i]);
    if constexpr (!C::per_row) load_groups(r.group, r.index);
  }
  // Of the present tile; `index` is that of group[0], which stays where groups are longer than tiles.
  KGEN_DEVICE void load_groups(Group (&group)[kGroups], int& index) const {
    if constexpr (kOneGroup) {
      const int next = group_index(source.k);
      if (next != index) group[0].load(source.table, next, source.column + valid_column(0));
      index = next;
    } else {
      KGEN_UNROLL
      for (int i = 0; i < kCount; ++i) {
        if (exists(i)) group[i].load(source.table, group_index(source.k + term(i)), source.column + valid_column(i));
      }
    }
  }
  KGEN_DEVICE void store(const Registers& r, int stage) const {
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (exists(i)) store_piece(i, r.words[i], r.group[kOneGroup ? 0 : i], r.k, source.end - r.k, stage);
  }
  // Piece by piece: for a single work-item with many pieces.
  template <bool kMasked>
  KGEN_DEVICE void copy(int /*k_left*/, int stage) const {
    const int left = source.end - source.k;
    KGEN_NO_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (!exists(i)) continue;
      Words words;
      Group group = {};
      load_words(i, left, words);
      if constexpr (!C::per_row)
        group.load(source.table, group_index(source.k + term(i)), source.column + valid_column(i));
      store_piece(i, words, group, source.k, left, stage);
    }
  }
};

// The same beside asynchronous copies of the other operand. The packed words come by such copies too, into a ring of as
// many slots as the stages, where each work-item reads only what it has copied itself and so needs no barrier. They are
// unpacked when the tile loop asks for their tile, which is one ring after they were asked for:
//
//   issue(j):  slot j ──▶ unpack ──▶ stage j     memory ──▶ slot j, for tile j + stages     (one group of copies each)
//
// The tile loop fills all stages before it waits for the first, so the words of all of these are there before it
// starts.
template <class C, class LdsLayout, int kOuter, int kInner, int kVec, int kThreads>
struct AsyncTileLoader<gptq::WeightSource<C>, LdsLayout, kOuter, kInner, kVec, kThreads, false> {
  using Source = gptq::WeightSource<C>;
  using Plain = TileLoader<Source, typename C::dtype, LdsLayout, kOuter, kInner, kVec, kThreads, false>;
  using Piece = typename Plain::Piece;
  static constexpr int kRing = C::stages * (C::tile_m + C::tile_n) * C::tile_k * 2;  // after the stages in LDS
  static constexpr int kWordBytes = kVec * 4, kSlotBytes = Plain::kCount * Piece::kWords * kThreads * kWordBytes;

  Plain ahead;  // at the tile whose words are copied next
  Plain plain;  // at the tile that is unpacked next
  int slot;     // of that tile
  int to;       // LDS byte of the stage that was asked for last
  typename Plain::Group group[Plain::kGroups];
  int index;  // of group[0] (kOneGroup)

  KGEN_DEVICE AsyncTileLoader(const Source& source, int thread_index)
      : ahead(source, thread_index), plain(source, thread_index), slot(0), to(0), index(-1) {
    KGEN_UNROLL
    for (int t = 0; t < C::stages; ++t) copy(t);
    async_commit();
    if (source.k < source.end) load_groups();
    async_wait<0>();
  }

  static KGEN_DEVICE int place(int slot, int i, int w, int thread) {
    return kRing + slot * kSlotBytes + ((i * Piece::kWords + w) * kThreads + thread) * kWordBytes;
  }
  // The words of the tile at `ahead`.
  KGEN_DEVICE void copy(int to_slot) {
    if (ahead.source.k < ahead.source.end) {
      const u32 start = lds_address(lds_base());
      KGEN_UNROLL
      for (int i = 0; i < Plain::kCount; ++i) {
        if (!ahead.exists(i)) continue;
        KGEN_UNROLL
        for (int w = 0; w < Piece::kWords; ++w)
          async_copy<kWordBytes>(start + u32(place(to_slot, i, w, ahead.thread)),
                                 ahead.words_at(i, w, ahead.source.end - ahead.source.k));
      }
    }
    ahead.source.advance();
  }
  KGEN_DEVICE void load_groups() {
    if constexpr (!C::per_row) plain.load_groups(group, index);
  }

  template <bool kMasked>
  KGEN_DEVICE void issue(int /*t*/, int /*k_left*/, u32 stage) {
    to = int(stage - lds_address(lds_base()));
  }
  // Here and not in issue(), which stands in the code once for whole tiles and once for the last.
  KGEN_DEVICE void advance() {
    const int left = plain.source.end - plain.source.k;
    if (left > 0) {
      KGEN_UNROLL
      for (int i = 0; i < Plain::kCount; ++i) {
        if (!plain.exists(i)) continue;
        typename Plain::Words words;
        KGEN_UNROLL
        for (int w = 0; w < Piece::kWords; ++w) {
          const auto v = load_vec<i32, kVec>(lds<i32>(place(slot, i, w, plain.thread)));
          KGEN_UNROLL
          for (int c = 0; c < kVec; ++c) words.of[w][c] = u32(v[c]);
        }
        plain.store_piece(i, words, group[Plain::kOneGroup ? 0 : i], plain.source.k, left, to);
      }
      plain.source.advance();
      if (left > kInner) load_groups();
    }
    copy(slot);  // its words have been read: they are in the stage
    slot = slot == C::stages - 1 ? 0 : slot + 1;
  }
};

template <class C, class P>
KGEN_DEVICE void gptq_tile(const P& p) {
  using G = gptq::GemmConfig<C>;
  using SourceA = MatrixSource<typename C::dtype, true>;
  using SourceB = gptq::WeightSource<G>;
  using Product = TileProduct<G, SourceA, SourceB>;
  i64 tile_row, tile_column, k0;
  tile_of_block<G>(p.m, p.n, tile_row, tile_column);
  const i64 m0 = tile_row * C::tile_m, n0 = tile_column * C::tile_n;
  const int k = terms_of_part<G>(p.k, block_y(), k0);
  const SourceA source_a(p.x + m0 * p.ldx + k0, p.ldx, p.m - m0, C::tile_m, C::tile_k, C::vec_a);
  const SourceB source_b(p, k0, k, n0);
  const gptq::GemmView<C, P> view(p);
  AheadOf<G, Product> ahead;
  const auto wave =
      Product::multiply(source_a, source_b, k, [&] { read_ahead<G, Product>(view, 0, m0, view.m, n0, ahead); });
  store_product<G, Product>(view, 0, m0, n0, wave, ahead);
}

namespace gptq {

// Row stride of the expanded weight.
template <class C, class P>
KGEN_DEVICE i64 expanded_stride(const P& p) {
  return ((C::b_layout == b_layout::kn ? p.n : p.k) + 7) / 8 * 8;
}

// The weight as T, [k][n] or [n][k]; a work-item unpacks vec columns of a piece.
template <class C, class P>
KGEN_DEVICE void expand(const P& p, typename C::dtype* expanded) {
  using T = typename C::dtype;
  using Piece = gptq::Piece<C>;
  constexpr int kVec = C::vec;
  const i64 per_line = p.n / kVec, item = i64(block_x()) * block_size() + thread_x();
  const i64 k = item / per_line * Piece::kK, column = item % per_line * kVec;
  if (k >= p.k) return;
  const gptq::GroupTable<C> table(p);
  const i32* from = p.qweight + k * C::bits / 32 * p.ldw + column;
  u32 words[kVec][Piece::kWords];
  KGEN_UNROLL
  for (int w = 0; w < Piece::kWords; ++w) {
    Vec<i32, kVec> v = {};
    if (k + w / Piece::F::kWords * Piece::F::kUnitK < p.k) v = load_vec<i32, kVec>(from + w * p.ldw);
    KGEN_UNROLL
    for (int c = 0; c < kVec; ++c) words[c][w] = u32(v[c]);
  }
  gptq::Group<C, kVec> group = {};
  if constexpr (!C::per_row) group.load(table, gptq::group_in_order<C>(int(k)), column);
  u32 pairs[kVec][Piece::kK / 2];
  KGEN_UNROLL
  for (int c = 0; c < kVec; ++c) {
    if constexpr (C::per_row) {
      float values[Piece::kK];
      Piece::floats_by_row(table, words[c], int(k), int(p.k - k), column + c, values);
      Piece::round(values, pairs[c]);
    } else {
      Packed<T, 1> scale;
      scale.words[0] = group.scales.bits(c);
      Piece::rounded(words[c], group.zeros.zero(column, c), scale, int(p.k - k), pairs[c]);
    }
  }
  const i64 stride = gptq::expanded_stride<C>(p);
  if constexpr (C::b_layout == b_layout::kn) {
    KGEN_UNROLL
    for (int e = 0; e < Piece::kK; ++e) {
      if (k + e >= p.k) break;
      Packed<T, kVec> row = {};
      KGEN_UNROLL
      for (int c = 0; c < kVec; ++c) row.set_bits(c, e % 2 ? pairs[c][e / 2] >> 16 : pairs[c][e / 2] & 0xffffu);
      row.store(expanded + (k + e) * stride + column);
    }
  } else {  // the last piece fills the padding of the row
    KGEN_UNROLL
    for (int c = 0; c < kVec; ++c) {
      KGEN_UNROLL
      for (int e = 0; e < Piece::kK / 2; e += 4) {
        if (k + 2 * e >= p.k) break;
        Vec<u32, 4> chunk;
        KGEN_UNROLL
        for (int j = 0; j < 4; ++j) chunk[j] = pairs[c][e + j];
        store_vec<u32, 4>(reinterpret_cast<u32*>(expanded + (column + c) * stride + k + 2 * e), chunk);
      }
    }
  }
}

}  // namespace gptq

template <class C, class P>
KGEN_DEVICE void gptq_expand(const P& p) {
  gptq::expand<C>(p, p.expanded);
}
template <class C, class P>
KGEN_DEVICE void gptq_expand_once(const P& p) {
  gptq::expand<C>(p, p.kept);
}

template <class C, class P>
KGEN_DEVICE void gptq_expanded_tile(const P& p) {
  gptq::GemmView<C, P> view(p);
  view.b = C::expanded_once ? p.kept : p.expanded;
  view.ldb = gptq::expanded_stride<C>(p);
  gemm_tile<gptq::GemmConfig<C>>(view);
}

}  // namespace kgen
