// Where an object's file lies below the root, and the store's own names there. Pure functions.
// Threading: thread-safe.  Waits: never.  Source: docs/formats/object-dir.md.
#pragma once

#include <string>
#include <string_view>

namespace terrace::transfer::dir {

// No part of an object's name holds '=' or an upper-case letter: what does is the store's own.
inline constexpr std::string_view kMarkerName = "TERRACE-OBJECTS";
inline constexpr std::string_view kLeftoverStart = "=new-";

struct Place {
  std::string folder;  // "models/a/=1f3", below the root.
  std::string leaf;    // The name's last part.
  [[nodiscard]] std::string path() const { return folder + "/" + leaf; }
};

// `name` has passed check_object_name.
[[nodiscard]] Place place_of(std::string_view name);
// The folder of 4096 that a name's last part goes to: "=000" … "=fff".
[[nodiscard]] std::string bucket_of(std::string_view leaf);
[[nodiscard]] bool is_bucket(std::string_view entry);
[[nodiscard]] bool is_leftover(std::string_view entry);
// "=new-<host>-<process>-<random>": one that no other writer has, and that says whose it is.
[[nodiscard]] std::string leftover_name(std::string_view host, long process, unsigned long random);

}  // namespace terrace::transfer::dir
