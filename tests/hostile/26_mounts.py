from trial import guarded_call, say
say(
    mount=guarded_call(165, b'none', b'/tmp', b'tmpfs', 0, 0), umount=guarded_call(166, b'/proc', 2), pivot=guarded_call(155, b'.', b'.'),
    chroot=guarded_call(161, b'.'), open_tree=guarded_call(428, -100, b'.', 1), fsopen=guarded_call(430, b'tmpfs', 0),
)
