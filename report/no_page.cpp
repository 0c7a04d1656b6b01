// Stands in for the page where the build had no npm: `kgen report` says so.
#include "report/page.h"

namespace kgen {

const std::string_view kReportPage = "";

}  // namespace kgen
