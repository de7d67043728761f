# Fetches what the models consist of, and refuses what is not as it was published.
set -eu
while read -r sum source target; do
  rclone copyto "$REPOSITORY/$source" "/models/$target"
  echo "$sum  /models/$target" | sha256sum -c -
done < /chart/files.txt
for config in /chart/*.pbtxt; do
  [ ! -e "$config" ] || cp "$config" "/models/$(basename "$config" .pbtxt)/config.pbtxt"
done
