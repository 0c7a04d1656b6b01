// Damages database files and gives each to the runtime (open, lookup, load) and to the tools (check, merge, show,
// migrate, export, prune), all in this program, so that its sanitizers see it:  corrupt_db COUNT [SEED] A table of what
// became of them goes to stdout. Exit code 1: a crash, or more than a second for a file.
#include <fmt/core.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/text.h"
#include "db/db.h"
#include "tests/db/records.h"
#include "tests/fuzz/inputs.h"
#include "tests/runtime/host_db.h"

namespace {

using namespace kgen;  // NOLINT(google-build-using-namespace)
namespace fs = std::filesystem;

constexpr const char* kKinds[] = {
    "1 bit flipped",        "2 to 64 bits flipped", "bytes overwritten",           "cut off",
    "two pages swapped",    "a page zeroed",        "a page doubled over another", "bits of the header",
    "bits of a code object"};
constexpr int kKindCount = static_cast<int>(std::size(kKinds));

struct Counts {
  long files, opened, found, refused, objects, clean, faulty, unread, merged, shown, migrated, crashes, slow;
  double worst_seconds;
};
// Shared with the child that does the work and may die.
struct Progress {
  long next;
  Counts kinds[kKindCount];
};

using Random = std::mt19937_64;
std::size_t below(Random& random, std::size_t limit) { return limit == 0 ? 0 : random() % limit; }

void flip(std::string& bytes, std::size_t at, Random& random) {
  if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(random, 8)));
}

std::string damage(std::string bytes, int kind, Random& random) {
  const std::size_t page = 4096, pages = bytes.size() / page;
  const auto page_at = [&](std::size_t i) { return bytes.begin() + static_cast<std::ptrdiff_t>(i * page); };
  switch (kind) {
    case 0:
      flip(bytes, below(random, bytes.size()), random);
      break;
    case 1:
      for (std::size_t n = 2 + below(random, 63); n > 0; --n) flip(bytes, below(random, bytes.size()), random);
      break;
    case 2: {
      std::size_t at = below(random, bytes.size());
      for (std::size_t n = 1 + below(random, 300); n > 0 && at < bytes.size(); --n)
        bytes[at++] = static_cast<char>(random());
      break;
    }
    case 3:
      bytes.resize(below(random, 2) == 0 ? below(random, bytes.size()) : below(random, pages) * page);
      break;
    case 4: {
      const std::size_t a = below(random, pages), b = below(random, pages);
      if (a != b) std::swap_ranges(page_at(a), page_at(a + 1), page_at(b));
      break;
    }
    case 5:
      std::fill_n(page_at(below(random, pages)), page, '\0');
      break;
    case 6: {
      const std::string copy(page_at(0), bytes.end());
      const std::size_t a = below(random, pages), b = below(random, pages);
      std::copy_n(copy.begin() + static_cast<std::ptrdiff_t>(a * page), page, page_at(b));
      break;
    }
    case 7:
      for (std::size_t n = 1 + below(random, 4); n > 0; --n) flip(bytes, below(random, 200), random);
      break;
    default: {
      // zstd's magic number begins a frame.
      const std::size_t frame = bytes.find("\x28\xb5\x2f\xfd", below(random, bytes.size()));
      const std::size_t from = frame == std::string::npos ? bytes.find("\x28\xb5\x2f\xfd") : frame;
      for (std::size_t n = 1 + below(random, 3); n > 0 && from != std::string::npos; --n)
        flip(bytes, from + below(random, 3000), random);
    }
  }
  return bytes;
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Files that are in order: one with kernels that this machine runs, signed, and one of each schema before.
std::vector<std::string> make_seeds(const fs::path& folder) {
  const std::string tuned = (folder / "seed.db").string();
  std::vector<testing::HostWinner> winners;
  for (int i = 0; i < 6; ++i)
    winners.push_back({.dims_key = fmt::format("cols=16 rows={}", 8 << i),
                       .config = fmt::format("plain v={}", i),
                       .is_default = i == 5,
                       .goal = {.timing = i % 2 == 0 ? "cold" : "graph"},
                       .same_bits = i % 3 == 0,
                       .code_suffix = std::string(static_cast<std::size_t>(i), 'x')});
  if (const auto made = testing::make_host_db(tuned, KGEN_HOST_KERNEL, winners); !made) {
    fmt::print(stderr, "{}\n", made.error().message);
    std::exit(2);
  }
  {
    Db db = Db::open(tuned, DbMode::kReadWrite).value();
    for (int i = 0; i < 40; ++i)
      (void)db.record(testing::sample_trial(1 + i % 6, 1, static_cast<TrialStatus>(i % 9))).value();
    if (!db.sign(PrivateKey{})) std::exit(2);
  }
  std::vector<std::string> seeds{read_file(tuned).value()};
  for (int version = 1; version <= 6; ++version)
    seeds.push_back(read_file(fmt::format("{}/tests/db/data/version{}.db", KGEN_SOURCE_DIR, version)).value());
  return seeds;
}

// The child: files from progress.next on.
void work(Progress& progress, long count, unsigned long seed, const std::vector<std::string>& seeds,
          const fs::path& folder) {
  const std::string path = (folder / "damaged.db").string(), log = (folder / "log").string();
  if (std::freopen("/dev/null", "w", stdout) == nullptr) std::abort();
  while (progress.next < count) {
    const long i = progress.next;
    Random random(seed * 1'000'003 + static_cast<unsigned long>(i));
    const int kind = static_cast<int>(i % kKindCount);
    const std::string& whole = seeds[below(random, 3) < 2 ? 0 : 1 + below(random, seeds.size() - 1)];
    const std::string bytes = damage(whole, kind, random);
    for (const auto& entry : fs::directory_iterator(folder)) fs::remove(entry.path());
    std::ofstream(path, std::ios::binary) << bytes;
    if (std::freopen(log.c_str(), "w", stderr) == nullptr) std::abort();
    const double start = cpu_seconds();
    const Outcome outcome = try_database(path, folder.string());
    const double seconds = cpu_seconds() - start;
    Counts& counts = progress.kinds[kind];
    ++counts.files;
    counts.opened += outcome.opened;
    counts.found += outcome.found;
    counts.refused += outcome.refused;
    counts.objects += outcome.objects;
    counts.clean += outcome.check == 0;
    counts.faulty += outcome.check == 1;
    counts.unread += outcome.check > 1;
    counts.merged += outcome.merge == 0;
    counts.shown += outcome.show == 0;
    counts.migrated += outcome.migrate == 0;
    counts.slow += seconds > 1;
    counts.worst_seconds = std::max(counts.worst_seconds, seconds);
    ++progress.next;
  }
}

void print(const char* name, const Counts& c) {
  fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2f} |\n", name, c.files, c.opened, c.found,
             c.refused, c.objects, c.clean, c.faulty, c.unread, c.merged, c.crashes, c.worst_seconds);
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 1 ? std::atol(argv[1]) : 0;
  const unsigned long seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1;
  if (count <= 0) {
    fmt::print(stderr, "usage: corrupt_db COUNT [SEED]\n");
    return 2;
  }
  std::string pattern = fs::exists("/dev/shm") ? "/dev/shm/kgen_corrupt_XXXXXX" : "/tmp/kgen_corrupt_XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return 2;
  const fs::path folder = pattern;
  const auto seeds = make_seeds(folder);
  auto* progress = static_cast<Progress*>(
      ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (progress == MAP_FAILED) return 2;
  std::memset(progress, 0, sizeof *progress);
  int told = 0;
  while (progress->next < count) {
    std::fflush(stdout);
    const pid_t child = ::fork();
    if (child == 0) {
      work(*progress, count, seed, seeds, folder);
      std::fflush(stderr);
      std::exit(0);  // leaks are told here
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (progress->next >= count && WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
    const std::string log = read_file((folder / "log").string()).value_or("");
    if (++told <= 5)
      fmt::print("file {} of seed {} ({}): status {:#x}\n{}\n", progress->next, seed,
                 kKinds[progress->next % kKindCount], status, log.substr(log.size() > 4000 ? log.size() - 4000 : 0));
    ++progress->kinds[progress->next % kKindCount].crashes;
    ++progress->next;
  }
  fmt::print(
      "| damage | files | opened by the runtime | lookups with a kernel | without | code objects given out, all with "
      "the right "
      "hash | check: clean | faults | refused | merged | crashes | slowest, CPU s "
      "|\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
  Counts all{};
  for (int kind = 0; kind < kKindCount; ++kind) {
    const Counts& c = progress->kinds[kind];
    print(kKinds[kind], c);
    const std::pair<long*, long> sums[] = {
        {&all.files, c.files},     {&all.opened, c.opened},   {&all.found, c.found},   {&all.refused, c.refused},
        {&all.objects, c.objects}, {&all.clean, c.clean},     {&all.faulty, c.faulty}, {&all.unread, c.unread},
        {&all.merged, c.merged},   {&all.crashes, c.crashes}, {&all.slow, c.slow}};
    for (const auto& [sum, value] : sums) *sum += value;
    all.worst_seconds = std::max(all.worst_seconds, c.worst_seconds);
  }
  print("all", all);
  fs::remove_all(folder);
  return all.crashes + all.slow > 0 ? 1 : 0;
}
