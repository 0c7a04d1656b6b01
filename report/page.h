// The page that `kgen report` fills: report/src, bundled with its charting library by report/build.mjs into one text.
#pragma once

#include <string_view>

namespace kgen {

// A whole HTML document with `kReportSlot` once, where the data goes as JSON. "" where the build had no npm.
extern const std::string_view kReportPage;
inline constexpr std::string_view kReportSlot = "\"kgen-data\"";

}  // namespace kgen
