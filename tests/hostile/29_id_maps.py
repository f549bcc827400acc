from trial import attempt, say
def write(name):
    with open(f'/proc/self/{name}', 'w') as file:
        file.write('0 0 1')
def refused(name):
    return 'refused' if attempt(write, name) != 'ok' else 'ok'
say(uid=refused('uid_map'), gid=refused('gid_map'), setgroups=refused('setgroups'))
