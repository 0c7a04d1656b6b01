// The session's children are this program again, as they are the kgen binary in the product.
#include <gtest/gtest.h>

#include <string_view>

#include "tuner/compile.h"
#include "tuner/session.h"

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "__worker" && argc > 2) return kgen::worker_main(argv[2]);
  if (command == "__compile-worker") return kgen::compile_worker_main();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
