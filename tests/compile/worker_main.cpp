// The test programs are their own compile workers, as the kgen executable is.
#include <gtest/gtest.h>

#include <string_view>

#include "tuner/compile.h"

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "__compile-worker") return kgen::compile_worker_main();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
