// Faults of the stand-in driver and compiler, by script. No fault where KGEN_FAKE_FAULTS is empty.
//
//   KGEN_FAKE_FAULTS="launch:3:hang;copy@1:%50:error=700;launch/gemm:p0.02:corrupt"
//
// Rules are separated by ';'. Each is CALL[/KERNEL][@DEVICE]:WHEN:ACTION[=VALUE]; of several that meet a call the first
// one acts.
//   CALL    a function of device/gpu_api.h as that file spells it (launch, copy, fill, allocate, module_load,
//           event_synchronize …), `any` for each of those that need the device, or `compile` for a run of the compiler
//   KERNEL  launches whose kernel's name begins so; compile: sources whose first kernel's does
//   DEVICE  calls for that device alone
//   WHEN    N the Nth such call · N+ the Nth and all later · %N each Nth · * each · pX each with probability X
//   ACTION  error=CODE    the call fails, no harm is done (`error=any`: a code by lot)
//           fault=CODE    the context is lost: this and all later calls of the process fail (`fault=any`); a launch
//           says
//                         nothing and the next call finds it
//           lost=SECONDS  the device answers no process for so long (0: for ever)
//           hang          no return
//           delay=MS      a late return
//           skip          says that all is well and does nothing
//           corrupt       a bit is flipped in what the call writes (launch, copy, fill), loads or compiles
//           value=X       event_elapsed_ms tells so many milliseconds (nan, inf, -1)
//           crash · exit · kill   the process ends by SIGSEGV, exit(0), SIGKILL
//           babble        4 MB of text on stdout and stderr first
//           half          compile: half of the object is left behind
//
// KGEN_FAKE_STATE names a file that all processes of a run share: calls are then counted over all of them, else in each
// one anew. KGEN_FAKE_LOG names a file that gets a line for each fault, and for each process its first launch.
// KGEN_FAKE_SEED is the seed of what goes by lot. A script that cannot be read ends the process.
#pragma once

#include <cstdint>
#include <string_view>

namespace fake {

struct Injection {
  enum class Kind { kNone, kError, kFault, kSkip, kCorrupt, kHalf, kValue };
  Kind kind = Kind::kNone;
  int code = 0;
  double value = 0;
};

// Call at the begin of each function. Those who hang, wait, print or die do so in here.
Injection meet(std::string_view call, std::string_view kernel = "", int device = 0);
// Is the device lost to every process now?
bool lost(int device);
// Numbers by lot for what is flipped.
std::uint64_t lot();
void log_line(std::string_view text);

}  // namespace fake
