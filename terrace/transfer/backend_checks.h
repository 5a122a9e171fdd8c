// What every backend must keep, as checks that a program can run: the contract suite of the tests
// and `terrace backend check` run the same ones.
// Threading: thread-compatible.  Waits: for the backend's completions, with a limit.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "terrace/base/crew.h"
#include "terrace/transfer/backend.h"

namespace terrace::transfer {

struct CheckPlace {
  using Make = std::function<Result<std::unique_ptr<Backend>>(const Backend::Options&)>;
  Make make;
  std::string directory;  // Empty at first, for this user alone; what is made there stays.
  // What a completion, and the backend's end, may take; thrice that is waited, as a backend that
  // has a patience of its own says more. Ample: a loaded machine must not fail what is right.
  Nanoseconds patience = seconds(60);
  std::uint64_t seed = 1;  // Of random traffic.
  Crew pair{};             // Two hands, where one waits and the other one wakes.
};

class CheckRig;

struct BackendCheck {
  std::string_view name;
  std::string_view promise;  // What is kept when it passes, in words.
  Status (*run)(CheckRig& rig);
};

[[nodiscard]] std::span<const BackendCheck> backend_checks();
// What plug-ins must keep beyond that: what is built in leaves its end to the kernel.
[[nodiscard]] std::span<const BackendCheck> library_checks();
// Null = there is none of this name.
[[nodiscard]] const BackendCheck* find_backend_check(std::string_view name);

// Makes a backend and runs one check on it. Not ok = what was seen instead.
[[nodiscard]] Status run_backend_check(const BackendCheck& check, const CheckPlace& place);

}  // namespace terrace::transfer
