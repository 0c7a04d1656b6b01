// The gemm family's kernels in the configurations of gemm_configs.h. Each takes its parameters as one struct.
#include "gemm_configs.h"
#include "templates/gemm_reference.h"
#include "templates/gemm_skinny.h"
#include "templates/pack_b.h"
#include "templates/prelude.h"
#include "templates/split_k.h"

using namespace kgen;
using testing::GemmArgs;

// One kernel `name` of a single parameter.
#define KERNEL(name, Args, call)             \
  KGEN_KERNEL(256, 1) name(Args p) { call; } \
  KGEN_HOST_ENTRY(name) { name(*static_cast<Args*>(params[0])); }

#define SKINNY(Config)                                                                \
  KERNEL(skinny_##Config, GemmArgs<testing::Config>, gemm_skinny<testing::Config>(p)) \
  KERNEL(reduce_##Config, GemmArgs<testing::Config>, split_k_reduce<testing::Config>(p))
SKINNY(SkinnyPlain)
SKINNY(SkinnyBf16)
SKINNY(SkinnyHalfRows)
SKINNY(SkinnySixteenRows)
SKINNY(SkinnySplit)
SKINNY(SkinnyUnaligned)
SKINNY(SkinnyKn)
SKINNY(SkinnyKnSplit)
SKINNY(SkinnyKnUnaligned)
SKINNY(SkinnyPacked)

using testing::ReferenceArgs;

#define ITEM (i64(block_x()) * block_size() + thread_x())
#define REFERENCE(Config)                                    \
  KERNEL(reference_##Config, ReferenceArgs<testing::Config>, \
         if (ITEM < p.count) reference_d<testing::Config>(p, ITEM, p.value[ITEM], p.magnitude[ITEM]))
REFERENCE(ReferenceNk)
REFERENCE(ReferenceKn)
REFERENCE(ReferenceErf)
REFERENCE(ReferenceSilu)
REFERENCE(ReferenceSigmoid)
REFERENCE(ReferenceRelu)

#define PROJECTION(Config)                                                                      \
  KERNEL(vector_##Config, ReferenceArgs<testing::Config>,                                       \
         if (ITEM < p.count) project_vector_d<testing::Config>(p, p.seed, ITEM, p.value[ITEM])) \
  KERNEL(project_##Config, ReferenceArgs<testing::Config>,                                      \
         if (ITEM < p.count) project_d<testing::Config>(p, p.seed, p.vector, ITEM, p.value[ITEM], p.magnitude[ITEM]))
PROJECTION(LinearNk)
PROJECTION(LinearKn)
PROJECTION(LinearFp16Sums)

KERNEL(pack_SkinnyPacked, GemmArgs<testing::SkinnyPacked>, pack_b<testing::SkinnyPacked>(p))
KERNEL(pack_PackNk, GemmArgs<testing::PackNk>, pack_b<testing::PackNk>(p))
KERNEL(pack_PackKn, GemmArgs<testing::PackKn>, pack_b<testing::PackKn>(p))
