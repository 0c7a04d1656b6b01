// What `kgen lookup` and `kgen explain` share: the shape that words on the command line ask for, and the runtime's
// answer.
#pragma once

#include "cli/cli.h"
#include "cli/options.h"
#include "runtime/dispatcher.h"

namespace kgen {

struct LookupRequest {
  std::string path, op, dtype, arch;
  Words words;  // dims and attributes
  Goal goal;
  bool as_json = false;
  void declare(Options&);  // its flags and arguments
  Result<void> name_db();  // the shipped database where the words name none
};

// As the runtime does: refuses rows whose code object is not whole. Each object is read once; the DB must stay.
RowFilter whole_code(Db&);

// The answer points into the dispatcher, and that into the DB.
struct Lookup {
  std::unique_ptr<Db> db;
  std::unique_ptr<Dispatcher> dispatcher;
  std::string path;
  std::string arch, device_name;  // looked up for
  std::string signature;
  Env dims;
  Match match;
  Account account;
};

Result<Lookup> look_up(LookupRequest&);

Json lookup_json(const Lookup&);

}  // namespace kgen
