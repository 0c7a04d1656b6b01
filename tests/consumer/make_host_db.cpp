// make_host_db FILE KERNELS: a tuned file for this machine's host device with one hand-made winner.
#include <cstdio>

#include "tests/runtime/host_db.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto made = kgen::testing::make_host_db(argv[1], argv[2], {{}});
  if (made) return 0;
  std::fprintf(stderr, "%s\n", made.error().message.c_str());
  return 1;
}
