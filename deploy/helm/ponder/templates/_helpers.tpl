{{- /* A text as a part of an object's name: small letters, digits and hyphens, as the autoscaler makes it. */ -}}
{{- define "ponder.slug" -}}
{{ regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" }}
{{- end -}}

{{- /* The name of a pool's Deployment. Takes the release's name and the pool. */ -}}
{{- define "ponder.pool" -}}
{{ .release }}-worker-{{ include "ponder.slug" .pool.model }}-{{ include "ponder.slug" .pool.machine }}-{{ include "ponder.slug" .pool.market }}
{{- end -}}

{{- /* The labels that a Deployment selects its pods by. Takes the release's name and the component. */ -}}
{{- define "ponder.selector" -}}
app.kubernetes.io/name: ponder
app.kubernetes.io/instance: {{ .release }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "ponder.labels" -}}
{{ include "ponder.selector" (dict "release" .root.Release.Name "component" .component) }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "ponder.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ponder.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* A variable from the Secret. Takes the root, the variable, the key, and whether it may be missing. */ -}}
{{- define "ponder.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.secret }}, key: {{ .key }}, optional: {{ .optional | default false }}}
{{- end -}}

{{- /* A value as text; of a whole number all digits, which Helm reads as a float. */ -}}
{{- define "ponder.plain" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end -}}

{{- /* The variables of every service. */ -}}
{{- define "ponder.variables" -}}
{{ include "ponder.secretVariable" (dict "root" . "name" "PONDER_DATABASE_URL" "key" "database-url") }}
{{ include "ponder.secretVariable" (dict "root" . "name" "PONDER_REDIS_URL" "key" "redis-url") }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ include "ponder.plain" $value | quote }}}
{{- end }}
{{- end -}}

{{- /* A working service touches the file in each of its rounds. Takes how old it may be, in seconds. */ -}}
{{- define "ponder.alive" -}}
exec:
  command: [sh, -c, "find /tmp/alive -newermt '-{{ . }} seconds' | grep -q ."]
{{- end -}}

{{- define "ponder.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
