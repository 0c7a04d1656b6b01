// Who may include whom. Reads the includes of every folder and the DEPS of every kgen_library(), so that an edge that
// the design does not have fails here before anything grows on it.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string>;

// Folder → folders whose headers it may include, itself included. Folders that are not here may not be included at all.
const std::map<std::string, Names> kMayInclude = {
    {"base", {"base"}},
    {"device", {"device", "base"}},
    {"db", {"db", "base"}},
    {"generator", {"generator", "base"}},
    {"compile", {"base"}},  // a library of its own inside tuner/: no device, no database
    {"tuner", {"tuner", "compile", "generator", "device", "db", "base"}},
    {"runtime", {"runtime", "kgen", "device", "db", "base"}},
    {"jit", {"kgen", "tuner", "compile", "generator", "device", "db", "base"}},  // the runtime by its C ABI alone
    {"report", {"report"}},
    {"cli", {"cli", "report", "runtime", "kgen", "tuner", "compile", "generator", "device", "db", "base"}},
};

// Libraries that belong to one room: header prefix → files (path prefixes) that may include it.
const std::map<std::string, std::vector<std::string>> kRooms = {
    {"yaml-cpp/", {"generator/"}},
    {"sqlite3", {"db/"}},
    {"zstd", {"db/"}},
    {"sodium", {"db/"}},
    {"dlfcn.h", {"device/", "tuner/compile", "jit/"}},  // drivers; NVRTC; where the library lies
    {"boost/context/", {"device/"}},
    {"xxhash", {"base/"}},
    {"CLI/", {"cli/"}},
    {"cuda", {"templates/prelude"}},
    {"nvrtc", {}},
    {"hip/", {"templates/prelude"}},
};

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool is_source(const fs::path& path) {
  static const Names kExtensions = {".h", ".hpp", ".cpp", ".cc", ".c", ".cu", ".in"};
  return kExtensions.contains(path.extension());
}

bool starts_with_any(const std::string& text, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return text.starts_with(prefix); });
}

void check_file(const fs::path& root, const fs::path& path, const std::string& folder,
                std::vector<std::string>& found) {
  static const std::regex kInclude(R"rx(^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"])rx");
  const std::string relative = fs::relative(path, root).generic_string();
  const std::string text = read(path);
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::smatch match;
    if (!std::regex_search(line, match, kInclude)) continue;
    const bool quoted = match[1] == "\"";
    const std::string header = match[2];
    const auto complain = [&](const std::string& why) {
      found.push_back(relative + ":" + std::to_string(number) + ": " + line + ": " + why);
    };
    for (const auto& [prefix, rooms] : kRooms) {
      if (header.starts_with(prefix) && !starts_with_any(relative, rooms)) complain("the library belongs elsewhere");
    }
    if (folder == "templates") {
      const auto is_template = [&](const fs::path& base) {
        const fs::path file = (base / header).lexically_normal();
        return fs::exists(file) && !fs::relative(file, root / "templates").generic_string().starts_with("..");
      };
      const bool local = is_template(root / "templates") || is_template(path.parent_path());
      if (quoted && !local) complain("templates include templates only");
      if (!quoted && !relative.starts_with("templates/prelude")) complain("only the prelude includes system headers");
      continue;
    }
    if (!quoted) continue;
    const std::string target = header.substr(0, header.find('/'));
    if (header.find('/') == std::string::npos || header.find("..") != std::string::npos) {
      complain("includes start at the repository's root");
    } else if (!kMayInclude.at(folder).contains(target)) {
      complain(folder + " may not include " + target);
    }
  }
}

void check_links(const fs::path& root, const fs::path& list, std::vector<std::string>& found) {
  static const std::regex kLibrary(R"(kgen_library\(\s*(\w+)([^)]*)\))");
  const std::string text = read(list);
  for (std::sregex_iterator call(text.begin(), text.end(), kLibrary), end; call != end; ++call) {
    const std::string folder = (*call)[1];
    std::istringstream words((*call)[2]);
    bool in_deps = false;
    for (std::string word; words >> word;) {
      if (word == "SOURCES" || word == "DEPS" || word == "LIBS") {
        in_deps = word == "DEPS";
      } else if (in_deps && (!kMayInclude.contains(folder) || !kMayInclude.at(folder).contains(word))) {
        found.push_back(fs::relative(list, root).generic_string() + ": kgen_" + folder + " may not link kgen_" + word);
      }
    }
  }
}

// Every edge under `root` that the tables above do not allow, and how many files were read.
struct Report {
  std::vector<std::string> found;
  int files = 0;
};
Report check_tree(const fs::path& root) {
  Report report;
  std::vector<std::string> folders = {"templates"};
  for (const auto& [folder, allowed] : kMayInclude) folders.push_back(folder);
  for (const std::string& folder : folders) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.is_regular_file() && is_source(entry.path())) {
        check_file(root, entry.path(), folder, report.found);
        ++report.files;
      }
      if (entry.path().filename() == "CMakeLists.txt") check_links(root, entry.path(), report.found);
    }
  }
  return report;
}

// A small tree in which one file is planted.
class PlantedTree : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / "kgen_layers_test";
    fs::remove_all(root_);
    plant("base/text.h", "#include <string>\n");
    plant("templates/prelude.h", "#include <math.h>\n");
    plant("templates/mma/fma.h", "#include \"prelude.h\"\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void plant(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::vector<std::string> found() const { return check_tree(root_).found; }

 private:
  fs::path root_;
};

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Layers, EveryIncludeAndLinkFollowsTheDesign) {
  const Report report = check_tree(KGEN_SOURCE_DIR);
  EXPECT_GT(report.files, 20);
  for (const std::string& edge : report.found) ADD_FAILURE() << edge;
}

TEST_F(PlantedTree, IsCleanBeforeAnythingIsPlanted) { EXPECT_THAT(found(), IsEmpty()); }

TEST_F(PlantedTree, RuntimeMayNotSeeTheGenerator) {
  plant("runtime/dispatcher.cpp", "#include \"base/text.h\"\n#include \"generator/spec.h\"\n");
  EXPECT_THAT(
      found(),
      ElementsAre(HasSubstr("runtime/dispatcher.cpp:2: #include \"generator/spec.h\": runtime may not include")));
}

TEST_F(PlantedTree, BaseMayNotSeeAnyFolder) {
  plant("base/arch.cpp", "  #  include \"device/device.h\"\n");
  EXPECT_THAT(found(), ElementsAre(HasSubstr("base may not include device")));
}

TEST_F(PlantedTree, LibrariesStayInTheirRooms) {
  plant("tuner/session.cpp", "#include <sqlite3.h>\n#include <dlfcn.h>\n#include <yaml-cpp/yaml.h>\n");
  EXPECT_EQ(found().size(), 3u);
}

TEST_F(PlantedTree, NvrtcMayBeLoadedByTheCompilerOnly) {
  plant("tuner/compile_worker.cpp", "#include <dlfcn.h>\n");
  plant("db/db.cpp", "#include <sqlite3.h>\n");
  EXPECT_THAT(found(), IsEmpty());
}

TEST_F(PlantedTree, TemplatesIncludeTemplatesOnly) {
  plant("templates/gemm.h", "#include \"mma/fma.h\"\n#include \"../base/text.h\"\n#include <vector>\n");
  EXPECT_THAT(found(), ElementsAre(HasSubstr("gemm.h:2"), HasSubstr("gemm.h:3")));
}

TEST_F(PlantedTree, IncludesStartAtTheRoot) {
  plant("db/db.cpp", "#include \"db.h\"\n#include \"../base/text.h\"\n");
  EXPECT_EQ(found().size(), 2u);
}

TEST_F(PlantedTree, LinksFollowTheSameEdges) {
  plant("runtime/CMakeLists.txt", "kgen_library(runtime SOURCES a.cpp\n  DEPS base tuner LIBS threads)\n");
  EXPECT_THAT(found(), ElementsAre(HasSubstr("kgen_runtime may not link kgen_tuner")));
}

}  // namespace
