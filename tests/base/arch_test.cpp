#include "base/arch.h"

#include <gmock/gmock.h>

#include <set>

namespace kgen {
namespace {

TEST(Arch, FindsEachRowByItsName) {
  std::set<std::string_view> names;
  for (const ArchInfo& arch : all_archs()) {
    const auto found = find_arch(arch.name);
    ASSERT_TRUE(found) << arch.name;
    EXPECT_EQ(*found, &arch);
    names.insert(arch.name);
  }
  EXPECT_EQ(names.size(), all_archs().size());
  for (const char* name : {"gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1151", "gfx1200",
                           "gfx1201", "sm_61", "sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "host"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST(Arch, SuggestsTheNearestNameForATypo) {
  const auto found = find_arch("gfx90b");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(found.error().message, testing::HasSubstr("did you mean 'gfx90"));
}

TEST(Arch, FactsAgreeWithEachOther) {
  for (const ArchInfo& arch : all_archs()) {
    SCOPED_TRACE(arch.name);
    EXPECT_EQ(arch.matrix_unit != "none", arch.fp16_matrix);  // every unit here takes fp16
    EXPECT_LE(arch.lds_limit, arch.lds_per_unit);
    EXPECT_EQ(arch.max_block % arch.wave_size, 0);
    EXPECT_LE(arch.max_block / arch.wave_size, arch.max_waves_per_unit);
    EXPECT_TRUE(arch.wave_size == 32 || arch.vendor == Vendor::kAmd);
  }
}

TEST(Arch, HopperBlocksMayUse227KiB) { EXPECT_EQ((*find_arch("sm_90"))->lds_limit, 232448); }

}  // namespace
}  // namespace kgen
