// Names of objects and of what lies in a shared directory: what passes stays below the root and is
// found again, and a reset's name means one generation.
#include <array>
#include <cstdlib>
#include <string>

#include "terrace/transfer/backends/dir/names_internal.h"
#include "terrace/transfer/object_store.h"
#include "terrace/wire/pack.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace dir = terrace::transfer::dir;
  const std::string name(reinterpret_cast<const char*>(data), size);
  if (terrace::transfer::check_object_name(name).is_ok()) {
    const dir::Place place = dir::place_of(name);
    const std::string path = "/" + place.path() + "/";
    if (path.find("/../") != std::string::npos || path.find("//") != std::string::npos ||
        path.find('\0') != std::string::npos || !name.ends_with(place.leaf)) {
      std::abort();
    }
    // None of the store's own names can be one of an object's parts.
    if (dir::is_leftover(place.leaf) || dir::is_bucket(place.leaf)) std::abort();
    if (place.leaf == dir::kMarkerName) std::abort();
  }
  const std::string made = dir::leftover_name(name, 7, 9);
  if (made.size() > 255 || made.find('/') != std::string::npos || !dir::is_leftover(made)) {
    std::abort();
  }
  const std::array<std::uint8_t, 32> digest{};
  const terrace::wire::PackNames names(digest, digest);
  for (const std::string& text : {name, names.resets() + name}) {
    const auto generation = names.generation_of(text);
    if (generation && names.reset(*generation) != text) std::abort();
  }
  for (const std::string& text : {name, std::string(terrace::wire::kTurns) + name}) {
    const auto turn = terrace::wire::turn_of(text);
    if (turn && terrace::wire::turn_name(*turn) != text) std::abort();
  }
  // Whatever is taken for a pack, and so may be removed, has a name that a store takes.
  if (const auto pack = terrace::wire::parse_pack_name(name); pack) {
    if (!terrace::transfer::check_object_name(name).is_ok()) std::abort();
    if (pack->blocks == 0 || pack->blocks > terrace::wire::kMostPackBlocks) std::abort();
  }
  return 0;
}
