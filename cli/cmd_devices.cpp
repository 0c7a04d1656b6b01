#include <fmt/core.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "device/device.h"

namespace kgen {

int cmd_devices(const Context&, const Words& args) {
  bool as_json = false;
  Options options("devices", "[--json]", "The devices of this machine, and why a driver is not usable.");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const DeviceProbe probe = probe_devices();
  Json json{{"devices", Json::array()}, {"notes", probe.notes}};
  Table table({"device", "name", "arch", "units", "memory", "L2", "clock", "driver"});
  for (const DeviceInfo& device : probe.devices) {
    json["devices"].push_back({{"id", device.id},
                               {"name", device.name},
                               {"arch", device.arch ? Json(device.arch->name) : Json()},
                               {"arch_name", device.arch_name},
                               {"driver", device.driver},
                               {"uuid", device.uuid},
                               {"compute_units", device.compute_units},
                               {"memory_bytes", device.memory_bytes},
                               {"l2_bytes", device.l2_bytes},
                               {"clock_khz", device.clock_khz},
                               {"lds_per_block", device.lds_per_block}});
    table.add({device.id, device.name, device.arch_name, std::to_string(device.compute_units),
               human_bytes(static_cast<double>(device.memory_bytes)), human_bytes(static_cast<double>(device.l2_bytes)),
               device.clock_khz > 0 ? fmt::format("{} MHz", device.clock_khz / 1000) : "", device.driver});
  }
  if (as_json) {
    print_json(json);
  } else {
    table.print();
    for (const std::string& note : probe.notes) fmt::print("{}\n", note);
  }
  return 0;
}

}  // namespace kgen
