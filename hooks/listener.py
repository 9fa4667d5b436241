"""Whose the socket may be. Imported only where that is neither root nor the job's own user: an EP that root started.

pwd is a C module of the interpreter's own, and costs nothing; the name is in /etc/passwd, which is read in 0.1 ms.
"""

import posix


def is_managers(uid: int, owner: str, root: str) -> bool:
    """Whether a uid is the manager's: of the user whom `config` named, by name or number.

    A configuration that was written before it named one has the owner of the cache, if only that one can write to it.
    """
    if owner.isdigit():
        return uid == int(owner)
    if owner:
        import pwd

        try:
            return bool(uid == pwd.getpwnam(owner).pw_uid)
        except KeyError:
            return False
    try:
        found = posix.stat(root)
    except (OSError, ValueError):
        return False
    return found.st_uid == uid and not found.st_mode & 0o022
