// Products by a warpgroup (wgmma, sm_90a): four waves of 32 lanes, D[64 x kN] += A[64 x 16] . B[16 x kN], fp32 sums. B
// lies in LDS, A in LDS or in registers. They run on while the waves do other things; sums and operands are left alone
// until they are waited for.
//
//   D, A in registers: wave w has rows 16w .. 16w+15, laid out as those of mma.sync
//
//     sums c[kN/2], columns 8j .. 8j+7:  row lane/4:      c[4j], c[4j+1]     columns 8j + 2*(lane%4) and the next
//                                        row lane/4 + 8:  c[4j+2], c[4j+3]
//     A r[4]: rows lane/4 and + 8, k 2*(lane%4) and the next; then the same for k 8 .. 15
//
//   LDS, K-major: rows of 128 bytes (64 terms); 8 rows are 1024 aligned bytes; 16-byte chunk i of row r lies at i ^ r %
//   8 (Permutation::swizzle of tile.h, and what a tensor map with a box of 128 bytes writes)
//
//   N-major B (kTransposed): rows of terms of 128 bytes (64 columns), permuted alike; the next 64 columns lie
//   column_step bytes on
//
// Source: PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once
#include "../prelude.h"

namespace kgen {

// Before the first product, and after registers that products read or add to were touched.
KGEN_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Ends a group of products.
KGEN_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most kPending groups are unfinished.
template <int kPending>
KGEN_DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving sums while products are under way.
template <int kCount>
KGEN_DEVICE void wgmma_hold(float (&c)[kCount]) {
  KGEN_UNROLL
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// Of an operand that begins at LDS address `lds`; add 2 for each 32 bytes along a row. K-major groups of 8 rows follow
// one another; N-major blocks of 64 columns lie `column_step` bytes apart.
KGEN_DEVICE u64 wgmma_operand(u32 lds, u32 column_step = 16) {
  constexpr u64 kEightRows = u64(1024 / 16) << 32, kPermuted128 = u64(1) << 62;
  return u64((lds & 0x3ffff) >> 4) | u64(column_step >> 4) << 16 | kEightRows | kPermuted128;
}

// clang-format off
#define KGEN_D0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define KGEN_D1 KGEN_D0 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define KGEN_D2 KGEN_D1 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define KGEN_D3 KGEN_D2 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define KGEN_D4 KGEN_D3 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define KGEN_D5 KGEN_D4 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define KGEN_D6 KGEN_D5 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define KGEN_D7 KGEN_D6 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define KGEN_D8 KGEN_D7 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define KGEN_D9 KGEN_D8 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define KGEN_D10 KGEN_D9 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define KGEN_D11 KGEN_D10 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define KGEN_D12 KGEN_D11 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define KGEN_D13 KGEN_D12 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define KGEN_D14 KGEN_D13 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define KGEN_D15 KGEN_D14 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define KGEN_C0 "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7])
#define KGEN_C1 KGEN_C0, "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15])
#define KGEN_C2 KGEN_C1, "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23])
#define KGEN_C3 KGEN_C2, "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
#define KGEN_C4 KGEN_C3, "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39])
#define KGEN_C5 KGEN_C4, "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47])
#define KGEN_C6 KGEN_C5, "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55])
#define KGEN_C7 KGEN_C6, "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
#define KGEN_C8 KGEN_C7, "+f"(c[64]), "+f"(c[65]), "+f"(c[66]), "+f"(c[67]), "+f"(c[68]), "+f"(c[69]), "+f"(c[70]), "+f"(c[71])
#define KGEN_C9 KGEN_C8, "+f"(c[72]), "+f"(c[73]), "+f"(c[74]), "+f"(c[75]), "+f"(c[76]), "+f"(c[77]), "+f"(c[78]), "+f"(c[79])
#define KGEN_C10 KGEN_C9, "+f"(c[80]), "+f"(c[81]), "+f"(c[82]), "+f"(c[83]), "+f"(c[84]), "+f"(c[85]), "+f"(c[86]), "+f"(c[87])
#define KGEN_C11 KGEN_C10, "+f"(c[88]), "+f"(c[89]), "+f"(c[90]), "+f"(c[91]), "+f"(c[92]), "+f"(c[93]), "+f"(c[94]), "+f"(c[95])
#define KGEN_C12 KGEN_C11, "+f"(c[96]), "+f"(c[97]), "+f"(c[98]), "+f"(c[99]), "+f"(c[100]), "+f"(c[101]), "+f"(c[102]), "+f"(c[103])
#define KGEN_C13 KGEN_C12, "+f"(c[104]), "+f"(c[105]), "+f"(c[106]), "+f"(c[107]), "+f"(c[108]), "+f"(c[109]), "+f"(c[110]), "+f"(c[111])
#define KGEN_C14 KGEN_C13, "+f"(c[112]), "+f"(c[113]), "+f"(c[114]), "+f"(c[115]), "+f"(c[116]), "+f"(c[117]), "+f"(c[118]), "+f"(c[119])
#define KGEN_C15 KGEN_C14, "+f"(c[120]), "+f"(c[121]), "+f"(c[122]), "+f"(c[123]), "+f"(c[124]), "+f"(c[125]), "+f"(c[126]), "+f"(c[127])
// Of n columns, 8 times an odd number: four more.
#define KGEN_D72 KGEN_D3 ", %32, %33, %34, %35"
#define KGEN_C72 KGEN_C3, "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35])
#define KGEN_D88 KGEN_D4 ", %40, %41, %42, %43"
#define KGEN_C88 KGEN_C4, "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43])
#define KGEN_D104 KGEN_D5 ", %48, %49, %50, %51"
#define KGEN_C104 KGEN_C5, "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51])
#define KGEN_D120 KGEN_D6 ", %56, %57, %58, %59"
#define KGEN_C120 KGEN_C6, "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59])
#define KGEN_D136 KGEN_D7 ", %64, %65, %66, %67"
#define KGEN_C136 KGEN_C7, "+f"(c[64]), "+f"(c[65]), "+f"(c[66]), "+f"(c[67])
#define KGEN_D152 KGEN_D8 ", %72, %73, %74, %75"
#define KGEN_C152 KGEN_C8, "+f"(c[72]), "+f"(c[73]), "+f"(c[74]), "+f"(c[75])
#define KGEN_D168 KGEN_D9 ", %80, %81, %82, %83"
#define KGEN_C168 KGEN_C9, "+f"(c[80]), "+f"(c[81]), "+f"(c[82]), "+f"(c[83])
#define KGEN_D184 KGEN_D10 ", %88, %89, %90, %91"
#define KGEN_C184 KGEN_C10, "+f"(c[88]), "+f"(c[89]), "+f"(c[90]), "+f"(c[91])
#define KGEN_D200 KGEN_D11 ", %96, %97, %98, %99"
#define KGEN_C200 KGEN_C11, "+f"(c[96]), "+f"(c[97]), "+f"(c[98]), "+f"(c[99])
#define KGEN_D216 KGEN_D12 ", %104, %105, %106, %107"
#define KGEN_C216 KGEN_C12, "+f"(c[104]), "+f"(c[105]), "+f"(c[106]), "+f"(c[107])
#define KGEN_D232 KGEN_D13 ", %112, %113, %114, %115"
#define KGEN_C232 KGEN_C13, "+f"(c[112]), "+f"(c[113]), "+f"(c[114]), "+f"(c[115])
#define KGEN_D248 KGEN_D14 ", %120, %121, %122, %123"
#define KGEN_C248 KGEN_C14, "+f"(c[120]), "+f"(c[121]), "+f"(c[122]), "+f"(c[123])
// clang-format on

#define KGEN_WGMMA_TYPED(type, n, j, a, b, keep, transposed, ...)                                                 \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " keep ", 0; wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type \
               "." type " {" KGEN_D##j "}, " a ", " b ", p, 1, 1, " transposed "; }"                              \
               : KGEN_C##j                                                                                        \
               : __VA_ARGS__)
#define KGEN_WGMMA_SS(n, j, a, b, use, transposed)                                                       \
  if constexpr (kN == n && kSame<In, bf16>)                                                              \
    KGEN_WGMMA_TYPED("bf16", n, j, a, b, use, "0, " transposed, "l"(first), "l"(second), "r"(int(keep)), \
                     "n"(int(kTransposed)));                                                             \
  else if constexpr (kN == n)                                                                            \
    KGEN_WGMMA_TYPED("f16", n, j, a, b, use, "0, " transposed, "l"(first), "l"(second), "r"(int(keep)),  \
                     "n"(int(kTransposed)));
#define KGEN_WGMMA_RS(n, j, a, b, use, transposed)                                                                    \
  if constexpr (kN == n && kSame<In, bf16>)                                                                           \
    KGEN_WGMMA_TYPED("bf16", n, j, a, b, use, transposed, "r"(first[0]), "r"(first[1]), "r"(first[2]), "r"(first[3]), \
                     "l"(second), "r"(int(keep)), "n"(int(kTransposed)));                                             \
  else if constexpr (kN == n)                                                                                         \
    KGEN_WGMMA_TYPED("f16", n, j, a, b, use, transposed, "r"(first[0]), "r"(first[1]), "r"(first[2]), "r"(first[3]),  \
                     "l"(second), "r"(int(keep)), "n"(int(kTransposed)));

// One product of 16 terms, operands of wgmma_operand(); without `keep` the sums begin with it.
template <class In, bool kTransposed = false, int kSums>
KGEN_DEVICE void wgmma(float (&c)[kSums], u64 first, u64 second, bool keep) {
  constexpr int kN = 2 * kSums;
  static_assert((kSame<In, bf16> || kSame<In, f16>) && (kN % 16 == 0 || (kN % 8 == 0 && kN >= 72)) && kN >= 16 &&
                kN <= 256);
  KGEN_WGMMA_SS(16, 0, "%8", "%9", "%10", "%11")
  KGEN_WGMMA_SS(32, 1, "%16", "%17", "%18", "%19")
  KGEN_WGMMA_SS(48, 2, "%24", "%25", "%26", "%27")
  KGEN_WGMMA_SS(64, 3, "%32", "%33", "%34", "%35")
  KGEN_WGMMA_SS(72, 72, "%36", "%37", "%38", "%39")
  KGEN_WGMMA_SS(80, 4, "%40", "%41", "%42", "%43")
  KGEN_WGMMA_SS(88, 88, "%44", "%45", "%46", "%47")
  KGEN_WGMMA_SS(96, 5, "%48", "%49", "%50", "%51")
  KGEN_WGMMA_SS(104, 104, "%52", "%53", "%54", "%55")
  KGEN_WGMMA_SS(112, 6, "%56", "%57", "%58", "%59")
  KGEN_WGMMA_SS(120, 120, "%60", "%61", "%62", "%63")
  KGEN_WGMMA_SS(128, 7, "%64", "%65", "%66", "%67")
  KGEN_WGMMA_SS(136, 136, "%68", "%69", "%70", "%71")
  KGEN_WGMMA_SS(144, 8, "%72", "%73", "%74", "%75")
  KGEN_WGMMA_SS(152, 152, "%76", "%77", "%78", "%79")
  KGEN_WGMMA_SS(160, 9, "%80", "%81", "%82", "%83")
  KGEN_WGMMA_SS(168, 168, "%84", "%85", "%86", "%87")
  KGEN_WGMMA_SS(176, 10, "%88", "%89", "%90", "%91")
  KGEN_WGMMA_SS(184, 184, "%92", "%93", "%94", "%95")
  KGEN_WGMMA_SS(192, 11, "%96", "%97", "%98", "%99")
  KGEN_WGMMA_SS(200, 200, "%100", "%101", "%102", "%103")
  KGEN_WGMMA_SS(208, 12, "%104", "%105", "%106", "%107")
  KGEN_WGMMA_SS(216, 216, "%108", "%109", "%110", "%111")
  KGEN_WGMMA_SS(224, 13, "%112", "%113", "%114", "%115")
  KGEN_WGMMA_SS(232, 232, "%116", "%117", "%118", "%119")
  KGEN_WGMMA_SS(240, 14, "%120", "%121", "%122", "%123")
  KGEN_WGMMA_SS(248, 248, "%124", "%125", "%126", "%127")
  KGEN_WGMMA_SS(256, 15, "%128", "%129", "%130", "%131")
}
// The same with A in registers, which stay as they are until it is done.
template <class In, bool kTransposed = false, int kSums>
KGEN_DEVICE void wgmma(float (&c)[kSums], const u32 (&first)[4], u64 second, bool keep) {
  constexpr int kN = 2 * kSums;
  static_assert((kSame<In, bf16> || kSame<In, f16>) && kN % 16 == 0 && kN >= 16 && kN <= 256);
  KGEN_WGMMA_RS(16, 0, "{%8, %9, %10, %11}", "%12", "%13", "%14")
  KGEN_WGMMA_RS(32, 1, "{%16, %17, %18, %19}", "%20", "%21", "%22")
  KGEN_WGMMA_RS(48, 2, "{%24, %25, %26, %27}", "%28", "%29", "%30")
  KGEN_WGMMA_RS(64, 3, "{%32, %33, %34, %35}", "%36", "%37", "%38")
  KGEN_WGMMA_RS(80, 4, "{%40, %41, %42, %43}", "%44", "%45", "%46")
  KGEN_WGMMA_RS(96, 5, "{%48, %49, %50, %51}", "%52", "%53", "%54")
  KGEN_WGMMA_RS(112, 6, "{%56, %57, %58, %59}", "%60", "%61", "%62")
  KGEN_WGMMA_RS(128, 7, "{%64, %65, %66, %67}", "%68", "%69", "%70")
  KGEN_WGMMA_RS(144, 8, "{%72, %73, %74, %75}", "%76", "%77", "%78")
  KGEN_WGMMA_RS(160, 9, "{%80, %81, %82, %83}", "%84", "%85", "%86")
  KGEN_WGMMA_RS(176, 10, "{%88, %89, %90, %91}", "%92", "%93", "%94")
  KGEN_WGMMA_RS(192, 11, "{%96, %97, %98, %99}", "%100", "%101", "%102")
  KGEN_WGMMA_RS(208, 12, "{%104, %105, %106, %107}", "%108", "%109", "%110")
  KGEN_WGMMA_RS(224, 13, "{%112, %113, %114, %115}", "%116", "%117", "%118")
  KGEN_WGMMA_RS(240, 14, "{%120, %121, %122, %123}", "%124", "%125", "%126")
  KGEN_WGMMA_RS(256, 15, "{%128, %129, %130, %131}", "%132", "%133", "%134")
}
#undef KGEN_WGMMA_SS
#undef KGEN_WGMMA_RS
#undef KGEN_WGMMA_TYPED

// Two bf16 in a word.
KGEN_DEVICE u32 add_bf16x2(u32 a, u32 b) {
  u32 result;
  asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}
KGEN_DEVICE u32 mul_bf16x2(u32 a, u32 b) {
  u32 result;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}

// Four fragments of 8 x 8 elements of 16 bits (a lane: row lane/4, columns lane%4*2 and the next) to LDS with rows and
// columns exchanged: `lds` of lane 8f + c is where column c of fragment f, 16 bytes, goes.
KGEN_DEVICE void store_fragments_transposed(u32 lds, const u32 (&f)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(lds), "r"(f[0]),
               "r"(f[1]), "r"(f[2]), "r"(f[3])
               : "memory");
}
// Two of them, in lanes 0 .. 15.
KGEN_DEVICE void store_fragments_transposed(u32 lds, const u32 (&f)[2]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(lds), "r"(f[0]), "r"(f[1])
               : "memory");
}

// Registers of a lane from here on: more for warpgroups that multiply, fewer for those that copy. Each role is one
// branch, and the kernel says that one block fills a unit (KGEN_KERNEL(threads, 1)).
template <int kRegisters>
KGEN_DEVICE void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
KGEN_DEVICE void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Arrives at the barrier that others wait for by sync_part(part, count), and goes on.
KGEN_DEVICE void arrive_part(int part, int count) {
  asm volatile("bar.arrive %0, %1;" ::"r"(part + 1), "r"(count) : "memory");
}
// By one instruction; of a NaN and a number the number.
KGEN_DEVICE float larger(float a, float b) {
  float result;
  asm("max.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

}  // namespace kgen
