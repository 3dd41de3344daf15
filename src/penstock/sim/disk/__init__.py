"""Power cuts and failing disks: the real embedded files over a disk that can be cut at any write.

``tape`` records what SQLite does to its files and can let operations fail. ``platter`` turns a
recorded prefix into what a power cut may leave. ``scenario`` does everything a store and a log can
do, ``restart`` opens what was left as a restart would and judges it, ``sweep`` does so many times.
"""
