// gemm_fp8 by tiles: D = epilogue(scale_a * scale_b * A.B^T) with the gemm family's tile loop. What the unit multiplies
// is decided on the way to LDS:
//
//   A, B ── words into registers, a tile ahead ──┬─▶ as they are     (units that take fp8: mfma_fp8.h, wmma12_fp8.h …)
//                                                ├─▶ f16, exactly    (units of 16 bits)
//                                                └─▶ scaled floats   (the plain ALU)        LDS [line][k] ──▶ Mma
//
//   scales      tensor: one factor of all sums, in the epilogue
//               block: a matrix unit's sums of a tile, whose terms lie within one block of 128, are multiplied and
//               added to the lane's totals; the ALU gets operands that are multiplied already
//
//   grid x: tiles of D in groups of group_m rows of tiles, y: parts of K (split_k_reduce's sums are made by
//   gemm_fp8_reduce)
//
// Legal (checked by the rules of ops/gemm_fp8.yaml): vec_a divides k, lda and the pointer, vec_b the same of B; with
// scales of blocks tile_k divides 128; tile*ld < 2^31.
#pragma once
#include "fp8.h"
#include "gemm.h"
#include "gemm_fp8_types.h"
#include "split_k.h"

namespace kgen {

namespace gemm_fp8 {

inline constexpr int kBlock = 128;  // terms and columns of a scale

// The operator as the epilogue of the gemm family reads it: what is added to D has D's type, one product, a factor.
template <class C>
struct EpilogueConfig : C {
  using dtype = typename C::out_dtype;
};
template <class P>
struct View : P {
  static constexpr i64 batch = 1, batch_stride_d = 0, batch_stride_r = 0, batch_stride_o = 0;
  float alpha;
};
template <class C, class P>
KGEN_DEVICE View<P> view_of(const P& p) {
  if constexpr (C::scales == scales::tensor)
    return {p, p.scale_a[0] * p.scale_b[0]};
  else
    return {p, 1.0f};
}

// The same as TileProduct reads it; Unit: what the unit takes.
template <class C, class Operand>
struct TileConfig : EpilogueConfig<C> {
  using dtype = Operand;
  using accumulate = float;
};

// ------------------------------------------------------------------------------------------- on the way to LDS

// Four e4m3 or e5m2 as two words of f16, 2^-8 of e4m3's values corrected; NaN stays NaN.
template <int kMantissa>
KGEN_DEVICE void widen(u32 word, u32 (&halves)[2]) {
  halves[0] = (word & 0xffu) << 8 | (word & 0xff00u) << 16;
  halves[1] = (word >> 8 & 0xff00u) | (word & 0xff000000u);
  if constexpr (kMantissa == 3) {
    KGEN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const u32 size = halves[i] & 0x7f007f00u;
      const u32 nan = ((size + 0x01000100u) & 0x80008000u) >> 15;
      halves[i] = mul_f16x2((halves[i] & 0x80008000u) | size >> 1, 0x5c005c00u) | nan * 0x7c00u;
    }
  }
}

// Four OCP bytes as CDNA 3 wants them.
template <int kMantissa>
KGEN_DEVICE u32 to_fnuz(u32 word) {
  constexpr u32 kToNan =
      kMantissa == 3 ? 0x01010101u : 0x04040404u;  // carries from the first NaN or infinity into bit 7
  const u32 size = word & 0x7f7f7f7fu;
  const u32 some = size + 0x7f7f7f7fu;  // bit 7: not zero
  const u32 nan = (size + kToNan) & 0x80808080u;
  const u32 whole = (nan >> 7) * 0xffu;
  return ((size | (word & some & 0x80808080u)) & ~whole) | nan;
}

// Scales of the lines and terms of a tile, from line `first_line` of the matrix on.
struct Scales {
  const float* at = nullptr;
  i64 line_stride = 0, block_stride = 0, first_line = 0;
  int lines = 1;  // that share one

  KGEN_DEVICE float of(int line, i64 term) const {
    return at[(first_line + line) / lines * line_stride + term / kBlock * block_stride];
  }
};

// Lines of K from a tile's corner: `extent` of them exist; those beyond are read as the last one and not stored.
template <class T_>
struct Source {
  using T = T_;
  static constexpr bool kKMajor = true;
  const T* base;  // first element of the present tile
  int ld, last, tile_k;
  i64 term;  // of `base`
  Scales scales;

  KGEN_DEVICE Source(const T* first, i64 leading, i64 extent, int tile, int tile_k_, i64 first_term,
                     const Scales& given)
      : base(first),
        ld(int(leading)),
        last((extent < tile ? int(extent) : tile) - 1),
        tile_k(tile_k_),
        term(first_term),
        scales(given) {}
  KGEN_DEVICE void advance() {
    base += tile_k;
    term += tile_k;
  }
};

// Moves tiles of kLines x kTileK from a Source to LDS, kVec an access, kThreads work-items together; as TileLoader of
// tile.h. kTransposed: LDS rows run along the lines. kScaled: each element times its scale.
template <class T, class Lds, class LdsLayout, int kLines, int kTileK, int kVec, int kThreads, bool kTransposed,
          bool kScaled, bool kToFnuz>
struct Loader {
  static constexpr int kPerLine = kTileK / kVec, kPieces = kLines * kPerLine;
  static constexpr int kCount = (kPieces + kThreads - 1) / kThreads, kWords = kVec < 4 ? 1 : kVec / 4;
  static constexpr int kMantissa = kSame<T, fp8_e4m3> ? 3 : 2;
  static_assert(kTileK % kVec == 0 && kVec <= 16, "a tile is whole vectors");
  Source<T> source;
  int thread;

  struct Piece {
    u32 words[kWords];
    float scale;
  };
  struct Registers {
    Piece v[kCount];
  };

  KGEN_DEVICE Loader(const Source<T>& from, int thread_index) : source(from), thread(thread_index) {}
  KGEN_DEVICE bool exists(int i) const { return kPieces % kThreads == 0 || thread + i * kThreads < kPieces; }
  KGEN_DEVICE int line(int i) const { return int(u32(thread + i * kThreads) / u32(kPerLine)); }
  KGEN_DEVICE int term(int i) const { return int(u32(thread + i * kThreads) % u32(kPerLine)) * kVec; }

  template <bool kMasked>
  KGEN_DEVICE void load_piece(Piece& to, int i, int k_left) const {
    const int at_line = min_int(line(i), source.last), at_term = term(i);
    const bool valid = !kMasked || at_term < k_left;
    const T* from = source.base + at_line * source.ld + (valid ? at_term : 0);
    if constexpr (kVec >= 4) {
      const auto words = load_vec<u32, kWords>(reinterpret_cast<const u32*>(from));
      KGEN_UNROLL
      for (int w = 0; w < kWords; ++w) to.words[w] = valid ? words[w] : 0u;
    } else if constexpr (kVec == 2) {
      to.words[0] = valid ? *reinterpret_cast<const u16*>(from) : 0u;
    } else {
      to.words[0] = valid ? from->bits : 0u;
    }
    if constexpr (kScaled) to.scale = source.scales.of(at_line, source.term + (valid ? at_term : 0));
  }
  KGEN_DEVICE void store_piece(const Piece& piece, int i, int stage) const {
    const int at_line = line(i), at_term = term(i);
    if constexpr (kSame<Lds, float>) {
      float values[kVec];
      KGEN_UNROLL
      for (int e = 0; e < kVec; ++e) {
        T code;
        code.bits = u8(piece.words[e / 4] >> e % 4 * 8);
        values[e] = to_float(code);
        if constexpr (kScaled) values[e] *= piece.scale;
      }
      store_run<float, 4>(values, at_line, at_term, stage);
    } else if constexpr (kSame<Lds, f16>) {
      f16 values[kVec];
      KGEN_UNROLL
      for (int w = 0; w < kWords; ++w) {
        u32 halves[2];
        widen<kMantissa>(piece.words[w], halves);
        KGEN_UNROLL
        for (int e = 0; e < 4 && 4 * w + e < kVec; ++e) values[4 * w + e] = f16{u16(halves[e / 2] >> e % 2 * 16)};
      }
      store_run<f16, 8>(values, at_line, at_term, stage);
    } else {
      static_assert(sizeof(Lds) == 1 && !kTransposed && !kScaled);
      unsigned char* to = lds<unsigned char>(stage + LdsLayout::offset(at_line, at_term));
      u32 words[kWords];
      KGEN_UNROLL
      for (int w = 0; w < kWords; ++w) words[w] = kToFnuz ? to_fnuz<kMantissa>(piece.words[w]) : piece.words[w];
      if constexpr (kVec >= 4) {
        Vec<u32, kWords> all;
        KGEN_UNROLL
        for (int w = 0; w < kWords; ++w) all[w] = words[w];
        store_vec<u32, kWords>(reinterpret_cast<u32*>(to), all);
      } else if constexpr (kVec == 2) {
        *reinterpret_cast<u16*>(to) = u16(words[0]);
      } else {
        *to = u8(words[0]);
      }
    }
  }
  // Runs of at most 16 bytes, which stay within a chunk of the layout.
  template <class E, int kMost>
  KGEN_DEVICE void store_run(const E (&values)[kVec], int at_line, int at_term, int stage) const {
    constexpr int kRun = kTransposed ? 1 : kVec < kMost ? kVec : kMost;
    KGEN_UNROLL
    for (int part = 0; part < kVec; part += kRun) {
      Vec<E, kRun> run;
      KGEN_UNROLL
      for (int e = 0; e < kRun; ++e) run[e] = values[part + e];
      store_vec<E, kRun>(lds<E>(stage + (kTransposed ? LdsLayout::offset(at_term + part, at_line)
                                                     : LdsLayout::offset(at_line, at_term + part))),
                         run);
    }
  }

  template <bool kMasked>
  KGEN_DEVICE void load(Registers& r, int k_left) const {
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (exists(i)) load_piece<kMasked>(r.v[i], i, k_left);
  }
  KGEN_DEVICE void store(const Registers& r, int stage) const {
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (exists(i)) store_piece(r.v[i], i, stage);
  }
  template <bool kMasked>
  KGEN_DEVICE void copy(int k_left, int stage) const {
    KGEN_NO_UNROLL
    for (int i = 0; i < kCount; ++i) {
      Piece piece;
      load_piece<kMasked>(piece, i, k_left);
      store_piece(piece, i, stage);
    }
  }
};

// ------------------------------------------------------------------------------------------------------ sums

// A wave whose sums of a tile are added to totals, times their scales (kScaled): as WaveTile of tile.h for the tile
// loops.
template <class Product, bool kScaled>
struct ScaledWave {
  using Shape = typename Product::Shape;
  using Unit = typename Product::Unit;
  typename Product::Wave wave;
  typename Unit::C total[Shape::kRm][Shape::kRn];
  Scales rows, columns;
  int first_row, first_column, last_row, last_column;  // of the wave, in the block's tile; the last that exist there
  i64 term;
  float factor;  // of all sums

  template <class SourceA, class SourceB>
  KGEN_DEVICE void begin(int index, int lane, const SourceA& a, const SourceB& b) {
    wave.begin(index, lane, a, b);
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < Shape::kRn; ++j) total[i][j] = typename Unit::C{};
    }
    rows = a.scales;
    columns = b.scales;
    first_row = index / Shape::kWavesN * Shape::kWaveM;
    first_column = index % Shape::kWavesN * Shape::kWaveN;
    last_row = a.last;
    last_column = b.last;
    term = a.term;
  }
  KGEN_DEVICE const typename Product::Wave& totals() {
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < Shape::kRn; ++j) wave.acc[i][j] = total[i][j];
    }
    return wave;
  }
  KGEN_DEVICE void multiply_tile(int stage) {
    float row[Shape::kRm][Unit::kRowsC], column[Shape::kRn];
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; ++i) {
      KGEN_UNROLL
      for (int r = 0; r < Unit::kRowsC; ++r)
        row[i][r] = !kScaled
                        ? 1.0f
                        : rows.of(min_int(first_row + i * Unit::kM + Unit::c_row(Product::lane(), r), last_row), term);
    }
    KGEN_UNROLL
    for (int j = 0; j < Shape::kRn; ++j)
      column[j] = !kScaled ? 1.0f : factor * columns.of(min_int(first_column + j * Unit::kN, last_column), term);
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < Shape::kRn; ++j) wave.acc[i][j] = typename Unit::C{};
    }
    wave.multiply_tile(stage);
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < Shape::kRn; ++j) {
        KGEN_UNROLL
        for (int r = 0; r < Unit::kRowsC; ++r) {
          const float scale = row[i][r] * column[j];
          KGEN_UNROLL
          for (int e = 0; e < Unit::kRowElementsC; ++e)
            Unit::set_c(total[i][j], r, e,
                        fma_f(scale, Unit::get_c(wave.acc[i][j], r, e), Unit::get_c(total[i][j], r, e)));
        }
      }
    }
    term += Shape::kTileK;
  }
};

// What the unit takes, by the files that a variant includes.
template <class C>
struct OperandOf {
  using Type = f16;
};
template <class C>
  requires(C::fp8_unit != 0)
struct OperandOf<C> {
  using Type = Fp8Operands<typename C::dtype, typename C::b_dtype>;
};

}  // namespace gemm_fp8

template <class C, class P>
KGEN_DEVICE void gemm_fp8_tile(const P& p) {
  using namespace gemm_fp8;
  using A = typename C::dtype;
  using B = typename C::b_dtype;
  using Epilogue = EpilogueConfig<C>;
  using Product = TileProduct<TileConfig<C, typename OperandOf<C>::Type>, Source<A>, Source<B>>;
  using Shape = typename Product::Shape;
  using Lds = typename Product::Lds;
  constexpr bool kBlocks = C::scales == scales::block;
  constexpr bool kOnTheWay = kBlocks && kSame<Lds, float>;  // scales are part of the operands
  constexpr bool kToFnuz = sizeof(Lds) == 1 && kFnuz<C::arch>;
  i64 tile_row, tile_column, k0;
  tile_of_block<C>(p.m, p.n, tile_row, tile_column);
  const i64 m0 = tile_row * C::tile_m, n0 = tile_column * C::tile_n;
  const int k = terms_of_part<C>(p.k, block_y(), k0), thread = thread_x();
  Scales rows, columns;
  if constexpr (kBlocks) {
    rows = {p.scale_a, p.scale_a_row_stride, p.scale_a_block_stride, m0, 1};
    columns = {p.scale_b, p.scale_b_row_stride, 1, n0, kBlock};
  }
  const Source<A> source_a(p.a + m0 * p.lda + k0, p.lda, p.m - m0, C::tile_m, C::tile_k, k0, rows);
  const Source<B> source_b(p.b + n0 * p.ldb + k0, p.ldb, p.n - n0, C::tile_n, C::tile_k, k0, columns);
  Loader<A, Lds, typename Shape::LayoutA, C::tile_m, C::tile_k, C::vec_a, Product::kThreads, false, kOnTheWay, kToFnuz>
      load_a(source_a, thread);
  Loader<B, Lds, typename Shape::LayoutB, C::tile_n, C::tile_k, C::vec_b, Product::kThreads, Product::kBInN, kOnTheWay,
         kToFnuz>
      load_b(source_b, thread);
  // NVIDIA's units (async_copy) keep some 14 bits of a sum, so fp32 takes over after every tile.
  constexpr bool kPromoted = sizeof(Lds) == 1 && C::async_copy && C::fast_accum == 0;
  constexpr bool kTotals = (kBlocks && !kOnTheWay) || kPromoted;
  typename ChooseType<kTotals, ScaledWave<Product, kBlocks>, typename Product::Wave>::Type wave;
  wave.begin(Product::wave_index(), Product::lane(), source_a, source_b);
  View<P> view = view_of<C>(p);
  if constexpr (kTotals)
    wave.factor = kToFnuz ? 4.0f : 1.0f;
  else if constexpr (kToFnuz)
    view.alpha *= 4.0f;
  if constexpr (C::arch == Arch::host)
    tile_loop_plain<Shape>(wave, load_a, load_b, k);
  else
    tile_loop_direct<Shape>(wave, load_a, load_b, k);
  if constexpr (Product::kThreads > 1) sync_block();  // the stages become the waves' slabs
  const AheadOf<Epilogue, Product> ahead{};
  if constexpr (kTotals)
    store_product<Epilogue, Product>(view, 0, m0, n0, wave.totals(), ahead);
  else
    store_product<Epilogue, Product>(view, 0, m0, n0, wave, ahead);
}

template <class C, class P>
KGEN_DEVICE void gemm_fp8_reduce(const P& p) {
  using namespace gemm_fp8;
  View<P> view = view_of<C>(p);
  if constexpr (C::scales == scales::tensor && C::fp8_unit != 0 && kFnuz<C::arch>) view.alpha *= 4.0f;
  split_k_reduce<EpilogueConfig<C>>(view);
}

}  // namespace kgen
